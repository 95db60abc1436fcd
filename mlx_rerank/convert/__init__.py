"""Conversion: a Hugging Face checkpoint as an MLX directory, packed, trimmed or sent to the hub."""

from mlx_rerank.convert.conversion import convert

__all__ = ["convert"]
