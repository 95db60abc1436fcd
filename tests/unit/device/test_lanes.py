"""All cores of a CPU work side by side, on one batch, and give what one would."""

import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from texts import PAIRS

from mlx_rerank import Reranker
from mlx_rerank.device import blas, lanes, memory
from mlx_rerank.errors import CheckpointError
from mlx_rerank.pairs.batching import Batch

pytestmark = pytest.mark.numeric

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nothing is done")


@linux
@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 2), (8, 8), (64, 8)])
def test_lanes(cores: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "cores", lambda: cores)
    assert lanes.lanes(mx.Device(mx.cpu)) == expected
    assert lanes.lanes(mx.Device(mx.gpu)) == 1


def test_elsewhere_there_is_one_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(memory, "_of_the_c_library", lambda *_: pytest.fail("looked for a C library"))
    assert lanes.lanes(mx.Device(mx.cpu)) == 1
    memory.keep_freed_memory()


def shapes(*rows: int) -> list[Batch]:
    return [Batch(np.zeros((n, 10), np.int32), None if n % 2 else np.ones((n, 10), bool)) for n in rows]


@linux
@pytest.mark.parametrize(
    ("rows", "expected", "threads"),
    [
        ((1,), [1], 8),
        ((5,), [2, 1, 1, 1], 2),
        ((3,), [1, 1, 1], 2),
        ((4, 9), [4, 3, 3, 3], 2),
        ((1, 1, 7), [1, 1, 4, 3], 2),
        ((2, 2, 2, 2), [2, 2, 2, 2], 2),
    ],
)
def test_idle_lanes_take_rows_of_the_largest_batch(
    rows: tuple[int, ...], expected: list[int], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(lanes, "cores", lambda: 8)
    monkeypatch.setattr(lanes, "_MOST_LANES", 4)
    monkeypatch.setattr(blas, "threads", lambda: 0)
    monkeypatch.setattr(blas, "set_threads", asked.append)
    seen = lanes.Lanes(mx.Device(mx.cpu)).each(_zeros, shapes(*rows))
    assert [part.shape[0] for part in seen] == expected
    assert asked == [threads]


@linux
def test_the_blas_does_as_it_is_told() -> None:
    library = blas._library
    if library is None or not hasattr(library, "openblas_get_num_threads"):
        pytest.skip("OpenBLAS is not what was loaded")
    before = library.openblas_get_num_threads()
    for number in (1, 2):
        blas.set_threads(number)
        assert library.openblas_get_num_threads() == number
    blas.set_threads(before)


def _zeros(ids: np.ndarray, *_: object) -> mx.array:
    return mx.zeros(ids.shape)


@linux
def test_threads_change_when_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(lanes, "cores", lambda: 2)
    monkeypatch.setattr(blas, "threads", lambda: 1)  # as two batches have, and one row has not
    monkeypatch.setattr(blas, "set_threads", lambda number: seen.append(f"{number} threads"))
    two, settle = lanes.Lanes(mx.Device(mx.cpu)), lambda: seen.append("settled")
    two.each(_zeros, shapes(1, 1), settle)
    assert seen == []
    two.each(_zeros, shapes(1), settle)
    assert seen == ["settled", "2 threads"]


@linux
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_a_logit_is_the_same_in_every_lane(tiny: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Reranker(tiny, device="cpu", deterministic=True).logits(PAIRS).logits
    monkeypatch.setattr(lanes, "lanes", lambda *_: count)
    reranker = Reranker(tiny, device="cpu")
    for rows in (1, 2, 7, len(PAIRS)):
        np.testing.assert_allclose(reranker.logits(PAIRS[:rows]).logits, expected[:rows], atol=1e-5)


@linux
def test_an_error_in_a_lane_is_the_callers(tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise CheckpointError("planted")

    monkeypatch.setattr("mlx_rerank.scoring.engine.inputs_of", fail)
    with pytest.raises(CheckpointError, match="planted"):
        tiny_reranker.logits(PAIRS)
