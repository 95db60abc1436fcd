"""Training: adapting a reranker to your own queries and documents, on the same model that scores."""

from mlx_rerank.train.examples import Example, read_examples
from mlx_rerank.train.options import TrainingOptions
from mlx_rerank.train.trainer import train

__all__ = ["Example", "TrainingOptions", "read_examples", "train"]
