"""Fixtures that tests of several packages share."""

import pytest
from checkpoints import TINY, embedded_tokenizer, write_checkpoint

from mlx_rerank import Reranker

SHAPE = TINY | {"vocab_size": 64000, "max_position_embeddings": 514}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    """A tiny model with the embedded one's tokenizer, so that texts of all scripts are cut as real ones are."""
    directory = tmp_path_factory.mktemp("checkpoints") / "small"
    return Reranker(write_checkpoint(directory, SHAPE, tokenizer=embedded_tokenizer()), dtype="float32", device="cpu")
