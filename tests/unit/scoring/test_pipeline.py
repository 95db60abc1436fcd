"""Windows, streams, and what of a call overlaps: order, completeness, laziness and padding."""

import dataclasses
import gc
import threading
import time
import tracemalloc
from collections import deque
from collections.abc import Iterator
from itertools import count, islice, repeat
from typing import Any

import bounds
import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TINY, encoder_of, shape_of, tiny_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_rerank import Reranker, ScoredPair
from mlx_rerank.device import lanes
from mlx_rerank.errors import InputError, NonFiniteScoreError
from mlx_rerank.models.mapping import SIGMOID, sigmoid
from mlx_rerank.pairs.batching import Batch, Batching
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.scoring import pipeline
from mlx_rerank.scoring.pipeline import FIRST_WINDOW, WINDOW, Pipeline
from mlx_rerank.scoring.stopping import Stop

PAIRS = [("panda", "the bear " * (i % 7) + str(i)) for i in range(40)]
SOME = st.lists(
    st.tuples(st.sampled_from(["panda", "the bear", ""]), st.sampled_from(["", "a", "the bear " * 9, "bb"])),
    max_size=14,  # three of the small windows
)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "FIRST_WINDOW", 3)
    monkeypatch.setattr(pipeline, "WINDOW", 5)


def idle(reranker: Reranker) -> None:
    """Wait until all that was handed over to the device is done, or was cancelled."""
    reranker.engine.apply(lambda *_: None, Batch(np.zeros((1, 1), np.int32)))


class Shapes:
    """Stands in for an engine: it notes what it is given, and every logit is 0."""

    side_by_side = 1

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, int]] = []  # rows, tokens of the longest, real tokens

    def run(self, groups: Iterator, stop: Stop) -> Iterator[np.ndarray]:
        for [batch] in groups:
            self.batches.append((*batch.input_ids.shape, batch.tokens))
            yield np.zeros(len(batch.input_ids), dtype=np.float32)


def shapes_of(pairs: list[tuple[str, str]], token_budget: int = 4096) -> list[tuple[int, int, int]]:
    engine, encoder = Shapes(), encoder_of(tiny_tokenizer(), shape_of(TINY))
    lengths = {"limits": Limits(512), "batching": Batching(token_budget), "mapping": SIGMOID}
    rest = {"stop": Stop(), "total": len(pairs), "hint": ""}
    found = Pipeline(encoder, engine, iter(pairs), **lengths, **rest).gather(False)  # pyright: ignore[reportArgumentType]
    assert len(found.logits) == len(pairs)
    return engine.batches


@pytest.mark.parametrize("number", [FIRST_WINDOW + 50, 5000])
def test_windows_cost_hardly_any_padding(number: int) -> None:
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(5.5, 0.4, number), 10, 500).astype(int)  # as those of scientific abstracts
    batches = shapes_of([("panda", f"{i} " + "a" * n) for i, n in enumerate(lengths)])
    padded, real = sum(rows * longest for rows, longest, _ in batches), sum(tokens for *_, tokens in batches)
    assert padded / real <= 1.03
    assert len(batches) <= 1.15 * real / 4096 + 20  # and the batches are not small ones instead


@pytest.mark.numeric
@pytest.mark.usefixtures("small_windows")
@settings(max_examples=30, deadline=None)
@given(pairs=SOME)
def test_a_stream_is_complete_whatever_repeats(tiny_reranker: Reranker, pairs: list[tuple[str, str]]) -> None:
    found = list(tiny_reranker.score_stream(pairs, raw_scores=True))
    expected = tiny_reranker.logits(pairs)
    assert sorted(pair.index for pair in found) == list(range(len(pairs)))
    for pair in found:
        assert pair.score == bounds.near(expected.logits[pair.index], raw=True)
        assert pair.truncated_tokens == expected.truncated_tokens[pair.index]


@pytest.mark.numeric
def test_windows_change_no_logit(tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tiny_reranker.logits(PAIRS)
    monkeypatch.setattr(pipeline, "FIRST_WINDOW", 3)
    monkeypatch.setattr(pipeline, "WINDOW", 5)
    found = tiny_reranker.logits(PAIRS)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=bounds.TINY)
    np.testing.assert_array_equal(found.truncated_tokens, expected.truncated_tokens)


@pytest.mark.numeric
def test_a_stream_gives_scores(tiny_reranker: Reranker) -> None:
    (pair,) = tiny_reranker.score_stream([("panda", "the bear")])
    assert isinstance(pair, ScoredPair)
    assert type(pair.index) is int
    assert type(pair.score) is float
    assert pair.score == bounds.near(tiny_reranker.score("panda", "the bear"))
    (raw,) = tiny_reranker.score_stream([("panda", "the bear")], raw_scores=True)
    assert sigmoid(np.array(raw.score)) == bounds.near(pair.score)
    assert list(tiny_reranker.score_stream([])) == []
    with pytest.raises(dataclasses.FrozenInstanceError):
        pair.score = 1.0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.usefixtures("small_windows")
def test_a_sequence_is_computed_once_and_a_query_tokenised_once(
    tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, texts = [], []
    run, tokenise = tiny_reranker.engine.run, tiny_reranker.encoder._tokenise
    counted = lambda groups, stop: run((rows.extend(len(b.input_ids) for b in g) or g for g in groups), stop)  # noqa: E731
    monkeypatch.setattr(tiny_reranker.engine, "run", counted)
    monkeypatch.setattr(
        tiny_reranker.encoder, "_tokenise", lambda new, check: texts.extend(new) or tokenise(new, check)
    )
    scores = tiny_reranker.score([("panda", f"bear {i % 9}") for i in range(60)])
    assert sum(rows) == len(np.unique(scores)) == 9
    assert texts.count("panda") == 1


def test_pairs_are_read_as_they_are_needed(tiny_reranker: Reranker) -> None:
    read = []
    endless = (read.append(i) or ("panda", f"bear {i}") for i in count())
    stream = tiny_reranker.score_stream(endless)
    assert read == []
    first = next(stream)
    assert len(read) <= FIRST_WINDOW + 2 * WINDOW
    assert len({pair.index for pair in islice(stream, FIRST_WINDOW)} | {first.index}) == FIRST_WINDOW + 1
    stream.close()
    assert len(read) <= FIRST_WINDOW + 3 * WINDOW


@pytest.mark.usefixtures("small_windows")
def test_what_is_done_does_not_wait_for_more_to_be_read(tiny_reranker: Reranker) -> None:
    read = []

    def slowly() -> Iterator[tuple[str, str]]:
        for pair in PAIRS:
            idle(tiny_reranker)
            read.append(pair)
            yield pair

    next(tiny_reranker.score_stream(slowly()))
    assert len(read) == 3 + 5 + 5


def test_an_endless_stream_of_one_pair_flows(tiny_reranker: Reranker) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "WINDOW", 10)
        found = list(islice(tiny_reranker.score_stream(repeat(("panda", "bear"))), 1000))
    assert [pair.index for pair in found] == list(range(1000))
    assert len({pair.score for pair in found}) == 1


def test_a_stream_keeps_nothing_of_what_it_has_yielded(tiny_reranker: Reranker) -> None:
    stream = tiny_reranker.score_stream(("panda", f"bear {i}") for i in count())
    held = []
    tracemalloc.start()
    try:
        for _ in range(5):
            deque(islice(stream, 4 * WINDOW), maxlen=0)
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        stream.close()
        tracemalloc.stop()
    assert (held[-1] - held[1]) / (12 * WINDOW) < 20  # bytes a pair; two or three windows are held at a time


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("bad", [("panda", None), "panda", ("panda", "half \ud83d")])
def test_an_error_in_the_middle_comes_after_the_pairs_before_it(tiny_reranker: Reranker, bad: object) -> None:
    found = []
    pairs = iter([*PAIRS[:17], bad, *PAIRS])
    with pytest.raises(InputError, match=r"pairs\[17\]"):
        found.extend(tiny_reranker.score_stream(pairs))  # pyright: ignore[reportArgumentType]
    assert sorted(pair.index for pair in found) == list(range(17))


@pytest.mark.usefixtures("small_windows")
def test_an_error_of_the_iterable_itself(tiny_reranker: Reranker) -> None:
    def broken() -> Iterator[tuple[str, str]]:
        yield from PAIRS[:3]  # the whole first window
        raise OSError("the disk is gone")

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        found.extend(tiny_reranker.score_stream(broken()))
    assert len(found) == 3
    with pytest.raises(OSError, match="the disk is gone"):
        tiny_reranker.score(broken())


def test_a_list_is_checked_before_the_device_is_used(tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_reranker.engine, "_forward", lambda *_: pytest.fail("the device was used"))
    with pytest.raises(InputError, match=r"pairs\[40\]"):
        tiny_reranker.score([*PAIRS, ("panda", 5)])  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(InputError, match="pairs must be a list"):
        tiny_reranker.score_stream("panda")  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("small_windows")
def test_a_logit_that_is_not_finite_names_its_index(tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_reranker.engine.run
    damaged = float(tiny_reranker.logits(PAIRS).logits[31])
    spoilt = lambda *a, **k: (np.where(np.isclose(x, damaged), np.nan, x) for x in run(*a, **k))  # noqa: E731
    monkeypatch.setattr(tiny_reranker.engine, "run", spoilt)
    with pytest.raises(NonFiniteScoreError, match=r"1 of \d pairs computed together .* pair 31 \('panda'"):
        tiny_reranker.score(PAIRS)


def test_the_next_window_is_tokenised_while_the_device_works(
    tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "FIRST_WINDOW", 10)
    monkeypatch.setattr(pipeline, "WINDOW", 10)
    monkeypatch.setattr(
        tiny_reranker.model, "deterministic", True
    )  # so that a window is more batches than are handed over
    forward, tokenise = tiny_reranker.engine._forward, tiny_reranker.encoder._tokenise
    tokenised = threading.Event()  # the second window
    threads, waited = [], []

    def computing(*batch: np.ndarray):
        if not waited:  # the first batch is not done before the second window is tokenised
            waited.append(tokenised.wait(10))
        return forward(*batch)

    def tokenising(*arguments: Any):
        threads.append(threading.current_thread().name)
        ids = tokenise(*arguments)
        if len(threads) == 2:
            tokenised.set()
        return ids

    monkeypatch.setattr(tiny_reranker.engine, "_forward", computing)
    monkeypatch.setattr(tiny_reranker.encoder, "_tokenise", tokenising)
    tiny_reranker.score(PAIRS)
    assert waited == [True]
    assert threads[0] == "MainThread"
    assert all(name.startswith("mlx-rerank-tokeniser") for name in threads[1:])


@pytest.mark.usefixtures("small_windows")
def test_closing_a_stream_stops_the_device(tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, computed = tiny_reranker.engine._forward, []
    monkeypatch.setattr(
        tiny_reranker.engine, "_forward", lambda *b: (time.sleep(0.01), computed.append(1), forward(*b))[2]
    )
    monkeypatch.setattr(tiny_reranker.model, "token_budget", 1)
    stream = tiny_reranker.score_stream(PAIRS)
    next(stream)
    stream.close()
    idle(tiny_reranker)
    assert len(computed) <= 3 * lanes.lanes(mx.default_device())  # done, started, and about to be
    assert next(stream, None) is None


def test_a_batch_is_prepared_while_the_one_ahead_runs(tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, prepared = tiny_reranker.engine, [threading.Event() for _ in range(len(PAIRS) + 1)]
    prepare, finish, begun, ended = engine._prepare, engine._finish, count(), count(1)
    expected = tiny_reranker.score(PAIRS)

    def finish_after_the_next(logits: list[mx.array]) -> np.ndarray:
        assert prepared[next(ended)].wait(10)
        return finish(logits)

    monkeypatch.setattr(tiny_reranker.model, "deterministic", True)  # each pair is a batch
    monkeypatch.setattr(engine, "_prepare", lambda group: (prepared[next(begun)].set(), prepare(group))[1])
    monkeypatch.setattr(engine, "_finish", finish_after_the_next)
    prepared[-1].set()
    found = tiny_reranker.score(PAIRS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=bounds.SCORE)


def test_progress_over_what_has_no_length(tiny_reranker: Reranker, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_reranker.score(iter(PAIRS), show_progress=True)
    assert "Scoring: 0pair" in capsys.readouterr().err  # and no percentage
    tiny_reranker.score(PAIRS, show_progress=True)
    assert "0/40" in capsys.readouterr().err
