"""What a converted directory records of its model, and what is made of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.hub import EMBEDDED
from mlx_rerank.convert import convert
from mlx_rerank.errors import CheckpointError, CheckpointNotFoundError

RECORDED = ("family", "frame", "score_rule", "mapping")
PAIRS = [("what is panda", "the bear"), ("panda", "")]


@pytest.fixture
def converted(tiny: Path, tmp_path: Path) -> Path:
    return convert(tiny, tmp_path / "target", dtype="float32")


def change(directory: Path, **changes: Any) -> None:
    """Change what is recorded; None takes it out."""
    config = json.loads((directory / "config.json").read_text())
    record = {k: v for k, v in (config["mlx_rerank"] | changes).items() if v is not None}
    (directory / "config.json").write_text(json.dumps(config | {"mlx_rerank": record}))


def test_what_is_recorded(converted: Path) -> None:
    record = json.loads((converted / "config.json").read_text())["mlx_rerank"]
    frame = {"start": [0], "middle": [2, 2], "end": [2], "pad": 1, "hidden": 3, "segments": False}
    assert {key: record[key] for key in RECORDED} == {
        "family": "xlm-roberta", "frame": frame, "score_rule": "the first token", "mapping": "sigmoid",
    }  # fmt: skip


def test_a_directory_written_before_there_was_a_record_loads_as_it_did(converted: Path) -> None:
    expected = Reranker(converted, deterministic=True).logits(PAIRS).logits
    change(converted, **dict.fromkeys(RECORDED))
    np.testing.assert_array_equal(Reranker(converted, deterministic=True).logits(PAIRS).logits, expected)
    assert not set(RECORDED) & json.loads((EMBEDDED["mini"] / "config.json").read_text())["mlx_rerank"].keys()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("family", "martian", "family 'martian', which is not one of .*xlm-roberta, bert"),
        ("family", 7, "family 7"),
        ("mapping", "cubic", "score mapping 'cubic', which is not one of sigmoid"),
        ("mapping", [1], "score mapping"),
        ("score_rule", "the last token", "score rule 'the last token'"),
        ("frame", {"start": [5]}, "config.json records"),
        ("frame", "odd", "config.json records"),
    ],
)
def test_a_record_of_something_else_is_refused(converted: Path, name: str, value: Any, message: str) -> None:
    change(converted, **{name: value})
    with pytest.raises(CheckpointError, match=message):
        Reranker(converted)


def test_a_record_that_is_no_object_is_refused(converted: Path) -> None:
    config = json.loads((converted / "config.json").read_text())
    (converted / "config.json").write_text(json.dumps(config | {"mlx_rerank": 7}))
    with pytest.raises(CheckpointError, match="holds 7 under 'mlx_rerank'"):
        Checkpoint.open(converted)


def test_a_name_is_found_where_it_leads(tiny: Path, tmp_path: Path) -> None:
    assert Checkpoint.open("mini").directory == EMBEDDED["mini"]
    assert Checkpoint.open(tiny).directory == Checkpoint.open(str(tiny)).directory == tiny
    with pytest.raises(CheckpointNotFoundError, match="not a directory"):
        Checkpoint.open(str(tmp_path / "nothing"))
