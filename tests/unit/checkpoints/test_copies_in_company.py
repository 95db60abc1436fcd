"""Converted copies of hub models that several threads or processes want at once."""

import fcntl
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from texts import PAIRS

from mlx_rerank import Reranker
from mlx_rerank.checkpoints import copies


def made(place: Path) -> Path:
    """Return the only copy."""
    (copy,) = place.glob("[!.]*")
    return copy


def logits(reranker: Reranker) -> np.ndarray:
    return reranker.logits(PAIRS).logits


def test_several_that_start_at_once_all_work(start: Callable[..., Reranker], tiny: Path, place: Path) -> None:
    expected = logits(Reranker(tiny, dtype="float16"))
    start("float32")  # downloads it
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: logits(start()), range(8)):
            np.testing.assert_array_equal(found, expected)
    assert {path.name for path in place.iterdir()} == {made(place).name, ".lock"}


def test_a_copy_that_another_process_has_just_made_is_taken(
    start: Callable[..., Reranker], tmp_path: Path, place: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    @contextmanager
    def after_another(directory: Path) -> Iterator[bool]:
        shutil.copytree(tmp_path / "another", copy)
        with alone(directory) as found:
            yield found

    expected, alone = logits(start()), copies._alone
    copy = made(place)
    copy.rename(tmp_path / "another")
    monkeypatch.setattr(copies, "_alone", after_another)
    monkeypatch.setattr("mlx_rerank.checkpoints.weights.port", None)
    np.testing.assert_array_equal(logits(start()), expected)
    assert not caplog.records


def test_models_are_converted_in_the_device_thread(
    start: Callable[..., Reranker], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    monkeypatch.setattr(copies, "write_converted", lambda *_, **__: threads.append(threading.current_thread().name))
    start()
    assert threads == ["mlx-rerank"]


def test_nobody_waits_for_another_process_that_makes_the_copy(
    start: Callable[..., Reranker], tiny: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place.mkdir(parents=True)
    with (place / ".lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        np.testing.assert_array_equal(logits(start()), logits(Reranker(tiny, dtype="float16")))
        assert {path.name for path in place.iterdir()} == {".lock"}
    start()
    assert made(place)
    assert not caplog.records
