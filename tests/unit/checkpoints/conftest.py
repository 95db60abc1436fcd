"""A model of a hub, and where its converted copies go."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_hub import FakeHub

from mlx_rerank import Reranker


@pytest.fixture
def start(hub: FakeHub, tiny: Path, tmp_path: Path) -> Callable[..., Reranker]:
    """Start a reranker of a hub's float32 model, in float16 unless another dtype is given."""
    hub.publish("test/tiny", tiny)
    return lambda dtype="float16": Reranker("test/tiny", dtype=dtype, cache_dir=tmp_path / "hub")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where copies of the model go."""
    return tmp_path / "copies" / "converted" / "test--tiny"
