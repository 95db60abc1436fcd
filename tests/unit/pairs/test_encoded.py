"""Pairs as token ids: parts that are joined, rows that belong to pairs, and logits that are put together again."""

from itertools import pairwise

import numpy as np
import pytest
from checkpoints import TINY, encoder_of, shape_of, tiny_tokenizer

from mlx_rerank.pairs.encoded import EncodedPairs, Row
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.windows import Windows

ENCODER = encoder_of(tiny_tokenizer(), shape_of(TINY))
WINDOWS = Limits(64, long_documents=Windows(16, 0, best=1))
PAIRS = [("panda", "the bear"), ("a", "panda is what? " * 20), ("panda", "the bear"), ("b", ""), ("a", "bear " * 40)]


@pytest.fixture
def encoded() -> EncodedPairs:
    return ENCODER.encode(PAIRS, WINDOWS)


def test_rows_that_differ_only_in_where_their_second_segment_begins_are_not_equal() -> None:
    ids = np.arange(6, dtype=np.int32)
    assert Row(ids, 2).key != Row(ids, 3).key
    assert Row(ids, 2).key == Row(ids.copy(), 2).key
    assert Row(ids).second == 0
    assert Row(ids).tokens == 6


@pytest.mark.parametrize("cuts", [(1,), (2, 3), (0, 5), (1, 2, 3, 4)])
def test_parts_are_joined_to_the_whole(encoded: EncodedPairs, cuts: tuple[int, ...]) -> None:
    places = [0, *cuts, len(PAIRS)]
    parts = [ENCODER.encode(PAIRS[a:b], WINDOWS) for a, b in pairwise(places)]
    joined = EncodedPairs.joined(parts)
    assert [row.key for row in joined.sequences] == [row.key for row in encoded.sequences]
    for name in ("inverse", "owners", "spans", "truncated_tokens", "share_read", "lengths", "tokens", "first_rows"):
        found, expected = getattr(joined, name), getattr(encoded, name)
        np.testing.assert_array_equal(found, expected, err_msg=name)
        assert found.dtype == expected.dtype, name


def test_one_part_is_the_whole(encoded: EncodedPairs) -> None:
    assert EncodedPairs.joined([encoded]) is encoded


def test_tokens_of_all_windows_of_a_pair(encoded: EncodedPairs) -> None:
    rows = np.bincount(encoded.owners)
    assert rows.max() > 3
    expected = [encoded.lengths[encoded.inverse[encoded.owners == i]].sum() for i in range(len(PAIRS))]
    assert encoded.tokens.tolist() == expected
    assert encoded.first_rows.tolist() == [0, *np.cumsum(rows)[:-1]]
    assert ENCODER.encode([], WINDOWS).tokens.tolist() == []


@pytest.mark.parametrize("best", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_a_pair_has_the_mean_of_its_best_windows_and_the_span_of_the_best(
    encoded: EncodedPairs, best: int, seed: int
) -> None:
    logits = np.random.default_rng(seed).permutation(len(encoded.sequences)).astype(np.float32)
    found, spans = encoded.combine(logits, best)
    assert found.dtype == np.float32
    for i in range(len(PAIRS)):
        rows = np.flatnonzero(encoded.owners == i)
        own = logits[encoded.inverse[rows]]
        assert found[i] == pytest.approx(np.sort(own)[-best:].mean())
        assert spans[i].tolist() == encoded.spans[rows[own.argmax()]].tolist()


def test_without_windows_each_row_is_a_pair() -> None:
    encoded = ENCODER.encode(PAIRS[:4], Limits(64))
    logits = np.arange(len(encoded.sequences), dtype=np.float32)
    found, spans = encoded.combine(logits)
    assert found.tolist() == logits[encoded.inverse].tolist()
    np.testing.assert_array_equal(spans, encoded.spans)


def test_the_share_that_was_read() -> None:
    encoded = ENCODER.encode([("a", ""), ("a", "bear " * 40), ("a", "bear")], Limits(20))
    tokens = len(ENCODER.tokens("bear " * 40)[0])
    assert encoded.share_read.tolist() == [1.0, pytest.approx((20 - 4 - len(ENCODER.tokens("a")[0])) / tokens), 1.0]
