"""Batches hold every sequence once, keep to the budget, and waste little."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_rerank.errors import InputError
from mlx_rerank.pairs.batching import BATCH_OVERHEAD, PADDING_SHARE, Batching, pad
from mlx_rerank.pairs.encoded import Row

lengths_of = st.lists(st.integers(4, 512), max_size=200).map(np.array)


@given(lengths_of, st.integers(1, 5000), st.none() | st.integers(1, 50))
def test_batches(lengths: np.ndarray, budget: int, max_rows: int | None) -> None:
    batches = Batching(budget, max_rows).plan(lengths)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        rows, longest = len(batch), lengths[batch].max()
        assert rows == 1 or rows * longest <= budget
        assert max_rows is None or rows <= max_rows
        assert rows * longest - lengths[batch].sum() <= max(BATCH_OVERHEAD, PADDING_SHARE * rows * longest)
    starts = [lengths[batch[0]] for batch in batches]
    assert starts == sorted(starts, reverse=True)


def test_equal_lengths_fill_the_budget() -> None:
    assert [len(batch) for batch in Batching(400).plan(np.full(10, 100))] == [4, 4, 2]


@pytest.mark.parametrize(("budget", "max_rows"), [(0, None), (-5, None), (100, 0), (1.5, None), ("64", None)])
def test_bad_limits(budget: int, max_rows: int | None) -> None:
    with pytest.raises(InputError, match="whole number of at least 1"):
        Batching(budget, max_rows).plan(np.array([5]))


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=20), min_size=1, max_size=20))
def test_pad(rows: list[list[int]]) -> None:
    input_ids, mask, segments = pad([Row(np.array(row, dtype=np.int32)) for row in rows], 1)
    assert segments is None
    assert input_ids.dtype == np.int32
    if mask is None:
        assert len({len(row) for row in rows}) == 1
        mask = np.ones(input_ids.shape, dtype=bool)
    assert mask.dtype == bool
    for padded, real, row in zip(input_ids, mask, rows, strict=True):
        assert padded[real].tolist() == row
        assert real[: len(row)].all()
        assert (padded[~real] == 1).all()


def test_segments_begin_where_rows_say_and_end_before_the_padding() -> None:
    batch = pad([Row(np.arange(4, 9, dtype=np.int32), 3), Row(np.arange(4, 7, dtype=np.int32), 1)], 1)
    assert batch.segments is not None
    assert batch.segments.dtype == bool
    assert batch.segments.tolist() == [[False] * 3 + [True] * 2, [False, True, True, False, False]]
