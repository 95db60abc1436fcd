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


def test_padding_up_to_what_a_batch_costs_is_allowed() -> None:
    plan = Batching(10_000).plan
    assert len(plan(np.array([100, 100 - BATCH_OVERHEAD]))) == 1
    assert len(plan(np.array([100, 99 - BATCH_OVERHEAD]))) == 2
    large = np.full(20, 100)  # 20 rows of 100 tokens may have 60 of padding
    assert [len(batch) for batch in plan(np.append(large[:19], 40))] == [20]
    assert [len(batch) for batch in plan(np.append(large[:19], 39))] == [19, 1]


def test_groups_are_batches_side_by_side() -> None:
    groups = Batching(100, side_by_side=2).groups(np.array([100, 40, 99, 98, 97]))
    assert [[batch.tolist() for batch in group] for group in groups] == [[[0], [2]], [[3], [4]], [[1]]]
    assert [len(group) for group in Batching(64).groups(np.array([60, 60, 60]))] == [1, 1, 1]  # one by one if not told


def test_most_rows() -> None:
    assert Batching(100).most_rows(30) == 3
    assert Batching(100, 2).most_rows(30) == 2
    assert Batching(100, 9).most_rows(30) == 3
    assert Batching(100).most_rows(1) == 100
    assert Batching(100).most_rows(101) == 1  # a row is computed, however long


def test_tokens_of_a_batch() -> None:
    rows = [Row(np.arange(4, 9, dtype=np.int32)), Row(np.arange(4, 7, dtype=np.int32))]
    assert pad(rows, 1).tokens == 8
    assert pad(rows[:1], 1).tokens == 5
    assert pad(rows[:1], 1).attention_mask is None


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
