"""Slices of requests: the same ids as in one go, and an end to those that are dropped."""

import asyncio
import threading
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_rerank import Reranker
from mlx_rerank.pairs.encoded import EncodedPairs
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.windows import Windows
from mlx_rerank.server import tokenising
from mlx_rerank.server.tokenising import Tokeniser, slices

LIMITS = Limits(20)
PAIRS = [("panda", "bear " * (i % 7 * 15) + str(i % 4)) for i in range(60)]


@given(st.lists(st.integers(0, 150_000), min_size=1, max_size=40))
def test_slices_are_the_pairs_and_bounded(lengths: list[int]) -> None:
    pairs = [("q", "d" * length) for length in lengths]
    found = list(slices(pairs))
    assert [pair for part in found for pair in part] == pairs
    assert all(len(part) == 1 or sum(len(document) for _, document in part) <= 100_000 for part in found)


def test_slices_count_queries_that_differ() -> None:
    assert [len(part) for part in slices([("q" * 70_000 + str(i), "d") for i in range(3)])] == [1, 1, 1]
    assert [len(part) for part in slices([("q" * 70_000, "d")] * 3)] == [3]


def test_slices_count_letters_that_stand_for_phrases() -> None:
    assert [len(part) for part in slices([("q", "\ufdfa" * 4000)] * 3)] == [1, 1, 1]
    assert [len(part) for part in slices([("q", "\ufb01" * 4000)] * 3)] == [3]


def test_slices_of_many_short_pairs() -> None:
    assert [len(part) for part in slices([("q", "d")] * 600)] == [256, 256, 88]


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(1, 59), max_size=5), windows=st.booleans())
def test_parts_join_to_what_one_go_gives(tiny_reranker: Reranker, cuts: list[int], windows: bool) -> None:
    encode, edges = tiny_reranker.encoder.encode, sorted({0, *cuts, len(PAIRS)})
    limits = Limits(64, long_documents=Windows(length=16, overlap=4)) if windows else LIMITS
    joined = EncodedPairs.joined([encode(PAIRS[a:b], limits) for a, b in pairwise(edges)])
    whole = encode(PAIRS, limits)
    assert (len(whole.owners) > len(PAIRS)) == windows
    assert [row.ids.tolist() for row in joined.sequences] == [row.ids.tolist() for row in whole.sequences]
    for name in ("inverse", "owners", "spans", "truncated_tokens", "share_read", "tokens"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))


@pytest.mark.anyio
async def test_a_request_of_one_slice_does_not_wait_for_those_of_many(
    tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, encode = list[int](), tiny_reranker.encoder.encode
    monkeypatch.setattr(tokenising, "_PAIRS", 2)
    begun, short = threading.Event(), threading.Event()

    def noted(pairs: Sequence[tuple[str, str]], *arguments: object) -> EncodedPairs:
        if len(pairs) == 2:  # of a long request: it goes on when the short one is done
            begun.set()
            assert short.wait(10)
        done.append(len(pairs))
        return encode(pairs, *arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(tiny_reranker.encoder, "encode", noted)
    tokeniser = Tokeniser()
    long = [asyncio.create_task(tokeniser.encode(tiny_reranker.encoder, PAIRS[:6], LIMITS)) for _ in range(4)]
    while not begun.is_set():
        await asyncio.sleep(0)
    await asyncio.wait_for(tokeniser.encode(tiny_reranker.encoder, PAIRS[:1], LIMITS), 10)
    short.set()
    await asyncio.gather(*long)
    assert done == [1] + [2] * 12
    tokeniser.close()


@pytest.mark.anyio
async def test_a_dropped_request_ends_with_its_slice(tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = tiny_reranker.encoder.encode
    monkeypatch.setattr(tokenising, "_PAIRS", 1)

    def noted(pairs: Sequence[tuple[str, str]], *arguments: object) -> EncodedPairs:
        encoded.append(len(pairs))
        return encode(pairs, *arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(tiny_reranker.encoder, "encode", noted)
    tokeniser = Tokeniser()
    task = asyncio.create_task(tokeniser.encode(tiny_reranker.encoder, PAIRS * 50, LIMITS))
    while not encoded:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0.05)
    assert len(encoded) <= 3
    tokeniser.close()
