"""Families of decoders: a file each, and the layers that several share."""
