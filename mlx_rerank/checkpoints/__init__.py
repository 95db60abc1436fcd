"""A model directory: found, read, mapped, converted in memory, kept for the next start, written and described."""
