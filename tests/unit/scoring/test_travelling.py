"""Rerankers that are pickled or copied: they are loaded again, and give the same scores, or say why they do not."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from fake_hub import FakeHub
from texts import PAIRS

from mlx_rerank import CrossEncoder, FlagReranker, Reranker
from mlx_rerank.errors import ChangedCheckpointError, CheckpointNotFoundError

WAYS: dict[str, Callable[[Any], Any]] = {
    "pickled": lambda given: pickle.loads(pickle.dumps(given)),
    "copied": copy.deepcopy,
}


def scores(reranker: Any) -> np.ndarray:
    score = {Reranker: "score", FlagReranker: "compute_score", CrossEncoder: "predict"}[type(reranker)]
    return np.array(getattr(reranker, score)(PAIRS))


@pytest.fixture
def moved(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, which may be changed."""
    return copytree(tiny, tmp_path / "model")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [Reranker, FlagReranker, CrossEncoder], ids=lambda kind: kind.__name__)
def test_every_face_travels(tiny: Path, kind: type, way: str) -> None:
    own: dict[str, Any] = {} if kind is Reranker else {"max_length": 64}
    given = kind(str(tiny), **own)
    found = WAYS[way](given)
    np.testing.assert_array_equal(scores(found), scores(given))
    assert found is not given


def test_to_another_process(tiny: Path) -> None:
    reranker = Reranker(tiny, deterministic=True)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        np.testing.assert_allclose(pool.submit(reranker.score, PAIRS).result(), reranker.score(PAIRS), atol=1e-5)


def test_all_that_was_asked_for_travels(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "other", tensors=random_tensors(TINY, seed=1))
    (tmp_path / "tiny").symlink_to(tiny)
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {
        "dtype": "float16",
        "max_length": 64,
        "long_documents": "windows",
        "token_budget": 70,
        "cpu_threads": 1,
    }
    given = Reranker("tiny", first_stage="other", keep=3, score_cache="scores.db", **options, deterministic=True)
    ranking = given.rank("panda", [f"the bear {i}" for i in range(9)])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = pickle.loads(pickle.dumps(given))
    assert found.model.recipe() == given.model.recipe()
    assert (found.limits, found.first_stage.keep, found.engine.side_by_side) == (given.limits, 3, 1)
    assert found.rank("panda", [f"the bear {i}" for i in range(9)]) == ranking
    assert not any((tmp_path / "elsewhere").iterdir())


def test_the_embedded_model_travels_by_its_name() -> None:
    assert Reranker("mini").model.recipe()[0] == "mini"


def test_files_that_were_changed_meanwhile(moved: Path) -> None:
    sent = pickle.dumps(Reranker(moved))
    write_checkpoint(moved, tensors=random_tensors(TINY, seed=1))
    with pytest.raises(ChangedCheckpointError, match="is not what it was when this model was pickled or copied"):
        pickle.loads(sent)
    rmtree(moved)
    with pytest.raises(CheckpointNotFoundError, match="is not a directory"):
        pickle.loads(sent)


def test_a_model_of_the_hub_is_fetched_where_it_is_not(hub: FakeHub, tiny: Path, tmp_path: Path) -> None:
    hub.publish("test/tiny", tiny)
    given = Reranker("test/tiny", cache_dir=tmp_path / "cache")
    sent, expected = pickle.dumps(given), scores(given)
    (tmp_path / "cache").rename(tmp_path / "other")
    np.testing.assert_array_equal(scores(pickle.loads(sent)), expected)
    commit = given.model.recipe()[0].name  # pyright: ignore[reportAttributeAccessIssue]
    assert any(commit in asked for asked in hub.asked)
