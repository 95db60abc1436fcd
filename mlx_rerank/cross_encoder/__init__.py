"""CrossEncoder: sentence-transformers' reranker interface over this package's, for programs that change one import."""

from mlx_rerank.cross_encoder.face import CrossEncoder

__all__ = ["CrossEncoder"]
