"""Fixtures that tests of several packages share."""

import pytest
from checkpoints import TINY, write_checkpoint
from tokenizers import Tokenizer

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.hub import EMBEDDED

SHAPE = TINY | {"vocab_size": 64000, "max_position_embeddings": 514}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    """A tiny model with the embedded one's tokenizer, so that texts of all scripts are cut as real ones are."""
    tokenizer = Tokenizer.from_file(str(EMBEDDED["mini"] / "tokenizer.json"))
    directory = tmp_path_factory.mktemp("checkpoints") / "small"
    return Reranker(write_checkpoint(directory, SHAPE, tokenizer=tokenizer), dtype="float32", device="cpu")
