"""Families of encoders: a file each, and the layers that several share."""
