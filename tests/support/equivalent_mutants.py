"""Changes of code that no test can notice, and why. By file, then by the line as it is changed."""

EQUIVALENT: dict[str, dict[str, str]] = {}
