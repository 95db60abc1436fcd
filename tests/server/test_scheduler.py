"""The queue: the scores of a caller who is alone, fair turns, full batches, and work that is dropped."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from random import Random

import bounds
import numpy as np
import pytest
from devices import busy_device
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_rerank import Reranker
from mlx_rerank.errors import DeviceError
from mlx_rerank.pairs.batching import Batching
from mlx_rerank.pairs.encoded import EncodedPairs
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.server.scheduler import Job, Scheduler

pytestmark = pytest.mark.numeric

Order = list[Counter[Job]]
Encode = Callable[[list[tuple[str, str]]], EncodedPairs]


def batching_of(reranker: Reranker) -> Batching:
    """Return how batches are made of rows: small ones, so that there are many."""
    return Batching(256, side_by_side=reranker.engine.side_by_side)


@pytest.fixture
def scheduler(tiny_reranker: Reranker) -> Iterator[Scheduler]:
    made = Scheduler(tiny_reranker.engine, batching_of(tiny_reranker), tiny_reranker.encoder.pad_token_id)
    yield made
    made.close()


@pytest.fixture
def encode(tiny_reranker: Reranker) -> Encode:
    return lambda pairs: tiny_reranker.encoder.encode(pairs, Limits(tiny_reranker.max_length))


@pytest.fixture
def order(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> Order:
    """The tokens that each request has in each batch, in the order of batches."""
    batches: Order = []
    choose = scheduler._next_batch

    def noted() -> list[tuple[Job, int]]:
        batch = choose()
        if batch:
            batches.append(Counter())
        for job, place in batch:
            batches[-1][job] += job.sequences[place].tokens
        return batch

    monkeypatch.setattr(scheduler, "_next_batch", noted)
    return batches


def pairs_of(count: int, seed: int = 0) -> list[tuple[str, str]]:
    random = Random(seed)
    return [("panda", " ".join(["bear"] * random.randint(0, 12)) + str(seed) + " " + str(i)) for i in range(count)]


def logits_of(job: Job, encoded: EncodedPairs) -> np.ndarray:
    return job.result.result(60)[encoded.inverse]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_scores_are_those_of_a_caller_who_is_alone(
    tiny_reranker: Reranker, scheduler_for_all: Scheduler, counts: list[int]
) -> None:
    encoder, limits = tiny_reranker.encoder, Limits(tiny_reranker.max_length)
    work = [pairs_of(count, seed) for seed, count in enumerate(counts)]
    encoded = [encoder.encode(pairs, limits) for pairs in work]
    jobs = [scheduler_for_all.submit(one) for one in encoded]
    for job, one, pairs in zip(jobs, encoded, work, strict=True):
        expected = tiny_reranker.logits(pairs).logits
        np.testing.assert_allclose(logits_of(job, one), expected, atol=bounds.TINY, rtol=0)


@pytest.fixture(scope="module")
def scheduler_for_all(tiny_reranker: Reranker) -> Iterator[Scheduler]:
    made = Scheduler(tiny_reranker.engine, batching_of(tiny_reranker), tiny_reranker.encoder.pad_token_id)
    yield made
    made.close()


def test_a_short_request_does_not_wait_for_a_long_one(scheduler: Scheduler, encode: Encode, order: Order) -> None:
    with busy_device():
        long = scheduler.submit(encode(pairs_of(600)))
        while not scheduler._handed_over:
            time.sleep(0.001)
        short = scheduler.submit(encode(pairs_of(5, seed=1)))
    short.result.result(60)
    assert not long.result.done()
    long.result.result(60)
    mine = [i for i, batch in enumerate(order) if short in batch]
    assert mine[0] > 0
    assert mine[-1] < len(order) / 3


def test_requests_have_equal_shares(scheduler: Scheduler, encode: Encode, order: Order) -> None:
    with busy_device():
        jobs = [scheduler.submit(encode(pairs_of(150, seed))) for seed in range(4)]
    for job in jobs:
        job.result.result(60)
    start = next(i for i, batch in enumerate(order) if jobs[-1] in batch)  # the first alone had the device before
    end = min(max(i for i, batch in enumerate(order) if job in batch) for job in jobs)
    shares = [sum(batch[job] for batch in order[start:end]) for job in jobs]
    assert end - start > 5
    assert max(shares) < 1.3 * min(shares), shares


def test_newcomers_without_end_do_not_keep_a_long_request_from_its_end(
    scheduler: Scheduler, encode: Encode, order: Order
) -> None:
    long = scheduler.submit(encode(pairs_of(400)))
    stop = threading.Event()

    def keep_coming(seed: int) -> None:
        while not stop.is_set():
            scheduler.submit(encode(pairs_of(8, seed))).result.result(60)

    others = [threading.Thread(target=keep_coming, args=(seed,)) for seed in range(1, 5)]
    for other in others:
        other.start()
    try:
        long.result.result(60)
    finally:
        stop.set()
        for other in others:
            other.join()


def test_batches_are_shared_and_hardly_padded(scheduler: Scheduler, encode: Encode, order: Order) -> None:
    with busy_device():
        jobs = [scheduler.submit(encode(pairs_of(40, seed))) for seed in range(6)]
    for job in jobs:
        job.result.result(60)
    assert any(len(batch) > 1 for batch in order)
    assert scheduler.rows == 240


def test_pairs_of_different_lengths_are_kept_apart(scheduler: Scheduler, encode: Encode) -> None:
    scheduler.submit(encode([("panda", "bear " * (10 * i)) for i in range(6)])).result.result(60)
    assert scheduler.rows == 6
    assert scheduler.padded_tokens - scheduler.tokens <= 32 * scheduler.batches  # as batching.py bounds it


def test_dropped_work_is_not_computed(scheduler: Scheduler, encode: Encode) -> None:
    with busy_device():
        dropped = scheduler.submit(encode(pairs_of(500)))
        kept = scheduler.submit(encode(pairs_of(10, seed=1)))
        assert dropped.result.cancel()
    kept.result.result(60)
    assert scheduler.rows < 150
    with pytest.raises(CancelledError):
        dropped.result.result()


def test_an_error_reaches_those_it_is_about_and_the_next_is_served(
    scheduler: Scheduler, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DeviceError("no device")

    with monkeypatch.context() as broken:
        broken.setattr(scheduler._engine, "_forward", fail)
        with pytest.raises(DeviceError):
            scheduler.submit(encode(pairs_of(30))).result.result(60)
    assert len(scheduler.submit(encode(pairs_of(3))).result.result(60)) == 3


def test_nothing_to_do(scheduler: Scheduler, encode: Encode) -> None:
    assert scheduler.submit(encode([])).result.result(1).shape == (0,)


def test_closing_finishes_what_is_queued(tiny_reranker: Reranker, encode: Encode) -> None:
    made = Scheduler(tiny_reranker.engine, batching_of(tiny_reranker), 1)
    job = made.submit(encode(pairs_of(100)))
    made.close()
    assert job.result.done()


def test_deterministic_scores_are_the_same_bits(tiny: object, encode: Encode) -> None:
    alone = Reranker(str(tiny), deterministic=True)
    made = Scheduler(alone.engine, alone.model.batching(), alone.encoder.pad_token_id)
    work = [pairs_of(20, seed) for seed in range(3)]
    encoded = [encode(pairs) for pairs in work]
    jobs = [made.submit(one) for one in encoded]
    for job, one, pairs in zip(jobs, encoded, work, strict=True):
        np.testing.assert_array_equal(logits_of(job, one), alone.logits(pairs).logits)
    made.close()


def test_idle_is_what_has_nothing_queued_and_nothing_handed_over(scheduler: Scheduler, encode: Encode) -> None:
    assert scheduler.idle
    with busy_device():
        one = scheduler.submit(encode(pairs_of(1)))
        while not scheduler._handed_over:
            time.sleep(0.001)
        scheduler._jobs = [job for job in scheduler._jobs if job.todo]
        assert not scheduler._jobs
        assert not scheduler.idle  # one batch is still with the device
        many = scheduler.submit(encode(pairs_of(400)))
        assert not scheduler.idle
    for job in (one, many):
        job.result.result(60)
    while scheduler._handed_over:  # it is taken out after the last result is handed over
        time.sleep(0.001)
    assert scheduler.idle


def test_the_pace_follows_the_last_batches(scheduler: Scheduler) -> None:
    begin = time.monotonic()
    assert scheduler._measure(100, begin - 10) >= begin
    assert scheduler.pace == pytest.approx(10, rel=0.05)
    scheduler._measure(100, time.monotonic() - 5)
    assert scheduler.pace == pytest.approx(12, rel=0.05)  # a fifth of the way from 10 to 20
    scheduler._measure(20, time.monotonic() - 10)
    assert scheduler.pace == pytest.approx(10, rel=0.05)


def test_a_job_knows_when_its_first_batch_was_handed_over(scheduler: Scheduler, encode: Encode) -> None:
    begin = time.monotonic()
    with busy_device():
        ahead = scheduler.submit(encode(pairs_of(400)))
        behind = scheduler.submit(encode(pairs_of(1, seed=1)))
        assert behind.started is None
    for job in (ahead, behind):
        job.result.result(60)
        assert job.started is not None
        assert begin <= job.queued <= job.started <= time.monotonic()


def test_batches_are_counted(scheduler: Scheduler, encode: Encode, order: Order) -> None:
    encoded = encode(pairs_of(90))
    scheduler.submit(encoded).result.result(60)
    assert scheduler.batches == len(order) > 2
    assert scheduler.rows == len(encoded.sequences)
    assert scheduler.tokens == encoded.lengths.sum() == sum(batch.total() for batch in order)
    assert scheduler.tokens <= scheduler.padded_tokens <= scheduler.batches * 256


def test_clocks_run_by_tokens_and_newcomers_begin_where_all_clocks_are(scheduler: Scheduler, encode: Encode) -> None:
    encoded = encode(pairs_of(60))
    alone = scheduler.submit(encoded)
    alone.result.result(60)
    assert alone.clock == scheduler._clock == encoded.lengths.sum()
    with busy_device():
        jobs = [scheduler.submit(encode(pairs_of(300, seed))) for seed in (1, 2)]
    for job in jobs:
        job.result.result(60)
        tokens = sum(row.tokens for row in job.sequences)
        assert alone.clock + tokens <= job.clock <= scheduler._clock + tokens
    together = sum(row.tokens for job in jobs for row in job.sequences)
    assert together / 2 <= scheduler._clock - alone.clock < 0.8 * together  # the first alone had the device for a while


def test_a_job_offers_its_longest_pairs_first_of_those_that_fit(encode: Encode) -> None:
    job = Job(encode(pairs_of(40)).sequences)
    lengths = sorted((row.tokens for row in job.sequences), reverse=True)
    offered = list(job.longest_first(lengths[0]))
    assert [tokens for tokens, _, _ in offered] == lengths
    assert {place for _, place, _ in offered} == set(range(len(lengths)))
    assert [tokens for tokens, _, _ in job.longest_first(lengths[20])] == [n for n in lengths if n <= lengths[20]]
    assert list(job.longest_first(0)) == []


def test_a_batch_is_of_the_longest_pairs_whosever_they_are(scheduler: Scheduler, encode: Encode) -> None:
    jobs = [Job(encode(pairs_of(30, seed)).sequences) for seed in (1, 2)]
    jobs[1].clock = 1.0  # so that the first is furthest behind
    scheduler._jobs = list(jobs)  # nobody tells the thread, so these are not computed
    longest = jobs[0].todo[-1][0]
    waiting = sorted((tokens for job in jobs for tokens, _ in job.todo if tokens <= longest), reverse=True)
    batch = scheduler._next_batch()
    assert batch[0][0] is jobs[0]
    assert [job.sequences[place].tokens for job, place in batch] == waiting[: len(batch)]
    assert {id(job) for job, _ in batch} == set(map(id, jobs))
    assert len(batch) == 256 // longest
    scheduler._jobs = []


def test_a_process_ends_though_its_queue_was_not_closed(scheduler: Scheduler) -> None:
    assert scheduler._thread.daemon
