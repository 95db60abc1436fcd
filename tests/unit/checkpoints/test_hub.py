"""From names to directories; the hub itself is a local stand-in."""

from pathlib import Path

import bounds
import numpy as np
import pytest
from checkpoints import write_checkpoint
from fake_hub import COMMIT, FakeHub

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.hub import EMBEDDED, commit_of, resolve
from mlx_rerank.errors import CheckpointNotFoundError


def test_embedded_and_local_names(tmp_path: Path) -> None:
    assert resolve("mini") == EMBEDDED["mini"]
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path
    assert commit_of(tmp_path) is None
    assert commit_of(tmp_path / "snapshots" / COMMIT) == COMMIT


@pytest.mark.parametrize("name", ["~nosuchuser/model", "x" * 5000, "null\0"])
def test_names_that_no_file_system_takes(name: str) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"cannot be a model|is not a directory"):
        resolve(name)


@pytest.fixture
def hub(hub: FakeHub, tmp_path: Path) -> FakeHub:
    """The hub with a checkpoint in the repository test/tiny."""
    served = write_checkpoint(tmp_path / "served")
    (served / "unwanted.onnx").write_bytes(b"x")
    hub.publish("test/tiny", served)
    return hub


@pytest.mark.numeric
def test_a_hub_id_is_downloaded_and_scores(hub: FakeHub, tiny_reranker: Reranker, tmp_path: Path) -> None:
    directory = resolve("test/tiny", cache_dir=tmp_path / "cache")
    assert commit_of(directory) == COMMIT
    assert not any("onnx" in path for path in hub.asked if "resolve" in path)
    reranker = Reranker("test/tiny", cache_dir=tmp_path / "cache")
    pairs = [("panda", "the bear")]
    np.testing.assert_allclose(reranker.score(pairs), tiny_reranker.score(pairs), rtol=0, atol=bounds.SCORE)


@pytest.mark.usefixtures("hub")
def test_what_the_hub_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="'test/missing' could not be fetched"):
        resolve("test/missing", cache_dir=tmp_path / "cache")
