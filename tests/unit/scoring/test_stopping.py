"""Deadlines and cancelled calls: in time, with what was scored, and with no work left behind."""

import pickle
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from devices import busy_device, slowed

from mlx_rerank import Reranker
from mlx_rerank.errors import CancelledError, DeadlineError, InputError, StoppedError
from mlx_rerank.pairs import encoder as encoder_module
from mlx_rerank.pairs.batching import Batch
from mlx_rerank.scoring.results import PairLogits

PAIRS = [("panda", "the bear " * (i % 7) + str(i)) for i in range(40)]
CALLS: list[Callable] = [
    lambda reranker, **stop: reranker.logits(PAIRS, **stop),
    lambda reranker, **stop: reranker.score(PAIRS, **stop),
    lambda reranker, **stop: reranker.score("panda", "bear", **stop),
    lambda reranker, **stop: reranker.rank("panda", ["bear", "the bear"], **stop),
    lambda reranker, **stop: list(reranker.score_stream(PAIRS, **stop)),
]


@pytest.fixture
def slow(tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> tuple[Reranker, list[int], PairLogits]:
    """A reranker that computes a pair in a batch of its own, for 20 ms, and notes each; and what comes of them all."""
    computed = slowed(tiny_reranker, monkeypatch)
    expected = tiny_reranker.logits(PAIRS)
    computed.clear()
    return tiny_reranker, computed, expected


def assert_partial(error: StoppedError, expected: PairLogits) -> None:
    assert 0 < len(error.indices) < len(PAIRS)
    assert (error.indices.dtype, error.logits.dtype, error.truncated_tokens.dtype) == (np.int64, np.float32, np.int64)
    np.testing.assert_array_equal(error.logits, expected.logits[error.indices])
    np.testing.assert_array_equal(error.truncated_tokens, expected.truncated_tokens[error.indices])
    np.testing.assert_array_equal(error.spans, expected.spans[error.indices])


@pytest.mark.parametrize("call", CALLS)
def test_a_deadline_while_others_use_the_device(tiny_reranker: Reranker, call: Callable) -> None:
    with busy_device():
        start = time.monotonic()
        with pytest.raises(DeadlineError, match=r"^0 of \d+ pairs were scored in 0.1 s: allow more than timeout=0.1"):
            call(tiny_reranker, timeout=0.1)
        assert 0.1 <= time.monotonic() - start < 2


@pytest.mark.parametrize("call", CALLS)
def test_an_event_set_by_another_thread(tiny_reranker: Reranker, call: Callable) -> None:
    cancel = threading.Event()
    with busy_device():
        timer = threading.Timer(0.1, cancel.set)
        timer.start()
        with pytest.raises(CancelledError, match=r"^0 of \d+ pairs were scored when cancel was set"):
            call(tiny_reranker, cancel=cancel)
        timer.join()


@pytest.mark.numeric
@pytest.mark.parametrize("call", CALLS)
def test_time_enough(tiny_reranker: Reranker, call: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_reranker.model, "deterministic", True)  # so that all of an answer can be compared
    found = call(tiny_reranker, timeout=60, cancel=threading.Event())
    assert repr(found) == repr(call(tiny_reranker))


@pytest.mark.numeric
def test_what_was_scored_before_the_deadline(slow: tuple[Reranker, list[int], PairLogits]) -> None:
    reranker, computed, expected = slow
    with pytest.raises(DeadlineError, match=r"^\d+ of 40 pairs were scored in 0.5 s") as caught:
        reranker.score(PAIRS, timeout=0.5)
    reranker.engine.apply(lambda *_: None, Batch(np.zeros((1, 1), np.int32)))
    assert len(computed) <= len(caught.value.indices) + 2  # the rest was cancelled
    assert isinstance(caught.value, TimeoutError)
    assert_partial(caught.value, expected)


@pytest.mark.numeric
def test_what_was_scored_when_cancelled(slow: tuple[Reranker, list[int], PairLogits]) -> None:
    reranker, computed, expected = slow
    cancel = threading.Event()
    stream, found = reranker.score_stream(iter(PAIRS), cancel=cancel, raw_scores=True), []
    with pytest.raises(CancelledError, match=r"^5 pairs were scored when") as caught:
        found.extend(pair for place, pair in enumerate(stream, 1) if place < 5 or cancel.set() is None)
    reranker.engine.apply(lambda *_: None, Batch(np.zeros((1, 1), np.int32)))
    assert len(computed) <= 5 + 3
    assert len(caught.value.indices) == 0  # all were yielded
    places = [pair.index for pair in found]
    assert [pair.score for pair in found] == expected.logits[places].tolist()


def test_no_batch_of_a_stopped_call_reaches_the_device(
    tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, forward = [], tiny_reranker.engine._forward
    monkeypatch.setattr(tiny_reranker.engine, "_forward", lambda *b: computed.append(1) or forward(*b))
    with busy_device(), pytest.raises(DeadlineError):
        tiny_reranker.score(PAIRS, timeout=0.05)
    tiny_reranker.engine.apply(lambda *_: None, Batch(np.zeros((1, 1), np.int32)))
    assert computed == []


def test_nothing_is_handed_over_after_the_event(tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    submit, submitted = tiny_reranker.engine._submit, []
    monkeypatch.setattr(tiny_reranker.engine, "_submit", lambda *batch: submitted.append(1) or submit(*batch))
    monkeypatch.setattr(tiny_reranker.model, "deterministic", True)
    cancel = threading.Event()
    stream = tiny_reranker.score_stream(PAIRS, cancel=cancel)
    next(stream)
    tiny_reranker.engine.apply(
        lambda *_: None, Batch(np.zeros((1, 1), np.int32))
    )  # what was handed over is done, so that nothing is waited for
    before = len(submitted)
    cancel.set()
    with pytest.raises(CancelledError):
        list(stream)
    assert len(submitted) == before < len(PAIRS)


def test_an_event_that_is_set_already(tiny_reranker: Reranker) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError, match=r"^0 of 40 pairs"):
        tiny_reranker.score(PAIRS, cancel=cancel)


def test_texts_that_take_long_to_tokenise(tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    tokenise = tiny_reranker.encoder._tokenise
    monkeypatch.setattr(tiny_reranker.encoder, "_tokenise", lambda *given: gate.wait(10) and tokenise(*given))
    start = time.monotonic()
    with pytest.raises(DeadlineError):
        tiny_reranker.score("panda", "bear", timeout=0.1)
    assert time.monotonic() - start < 5
    gate.set()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "1", True, 1j])
@pytest.mark.parametrize("call", CALLS)
def test_bad_timeouts(tiny_reranker: Reranker, call: Callable, timeout: object) -> None:
    with pytest.raises(InputError, match="timeout must be a finite number of seconds above 0, or None, not"):
        call(tiny_reranker, timeout=timeout)


@pytest.mark.parametrize("call", CALLS)
def test_bad_events(tiny_reranker: Reranker, call: Callable) -> None:
    with pytest.raises(InputError, match="cancel must have is_set"):
        call(tiny_reranker, cancel=True)


def test_a_stream_is_refused_at_once(tiny_reranker: Reranker) -> None:
    with pytest.raises(InputError, match="timeout"):
        tiny_reranker.score_stream(PAIRS, timeout=-1)  # without the first pair being asked for


@pytest.mark.parametrize("kind", [DeadlineError, CancelledError])
def test_errors_travel_between_processes(kind: type[StoppedError]) -> None:
    error = kind("1 of 2", np.array([1]), np.array([0.5], dtype=np.float32), np.array([0]), np.array([[2, 5]]))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == "1 of 2"
    assert copy.indices.tolist() == [1]
    assert copy.logits.tolist() == [0.5]
    assert copy.truncated_tokens.tolist() == [0]
    assert copy.spans.tolist() == [[2, 5]]


def test_texts_are_not_tokenised_for_a_call_that_has_ended(
    tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Python would wait for it at its end."""
    tokenised: list[str] = []

    def noted(text: str) -> None:
        tokenised.append(text)
        time.sleep(0.001)

    monkeypatch.setattr(encoder_module, "_CHUNK", 4)
    monkeypatch.setattr(encoder_module, "require_unicode", noted)
    stream = tiny_reranker.score_stream([("panda", f"熊 {i}") for i in range(1280)])
    next(stream)
    stream.close()
    done = len(tokenised)
    time.sleep(0.3)
    assert 256 <= len(tokenised) <= done + 4 < 1280
