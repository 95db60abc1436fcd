"""CrossEncoder: sentence-transformers' reranker interface over this package's, for programs that change one import."""

from mlx_rerank.compat.sentence_transformers.cross_encoder import CrossEncoder

__all__ = ["CrossEncoder"]
