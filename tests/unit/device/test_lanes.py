"""All cores of a CPU work side by side, on one batch, and give what one would."""

import sys
import time
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
    seen = lanes.Lanes(mx.Device(mx.cpu)).each(lambda ids, *_: mx.zeros(ids.shape), shapes(*rows))
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


def _squares(ids: np.ndarray, *__: object) -> mx.array:
    """Some 50 ms of work that ends at ones, of which the first of each row is returned."""
    found = mx.full((600, 600), 1 / 600)
    for _ in range(8):
        found = found @ found
    return mx.broadcast_to(found[0, :1] * 600, (len(ids), 1))


@linux
def test_threads_change_when_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def set_threads(_: int) -> None:
        start = time.monotonic()
        mx.eval(under_way)
        seen.append(time.monotonic() - start)

    monkeypatch.setattr(lanes, "cores", lambda: 2)
    monkeypatch.setattr(blas, "threads", lambda: 1)  # as two batches have, and one row has not
    monkeypatch.setattr(blas, "set_threads", set_threads)
    two = lanes.Lanes(mx.Device(mx.cpu))
    start = time.monotonic()
    mx.eval(two.each(_squares, shapes(1, 1)))
    whole = time.monotonic() - start
    under_way = two.each(_squares, shapes(1, 1))
    mx.async_eval(under_way)
    assert seen == []
    two.each(_squares, shapes(1))
    assert len(seen) == 1
    assert seen[0] < whole / 4


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
