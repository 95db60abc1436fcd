"""Fills batches from the pairs of all requests, so that a short request does not wait for a long one.

Every request has a clock that runs while its pairs are computed, by their tokens. The next batch begins with the
longest pair of the request whose clock is furthest behind, and is filled with pairs of like length, whosever they are.
So each of N requests gets at least an N-th of the device, and batches are as full and as even as those of one caller.

Source: A. Demers, S. Keshav and S. Shenker, Analysis and simulation of a fair queueing algorithm, SIGCOMM 1989.
"""

import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice

import numpy as np

from mlx_rerank.errors import ChangedCheckpointError
from mlx_rerank.pairs.batching import Batch, Batching, pad
from mlx_rerank.pairs.encoded import EncodedPairs, Row
from mlx_rerank.scoring.engine import Engine

_SMOOTHING = 0.2  # weight of the last batches in the pace that is told to clients which have to wait

Place = tuple[int, int]  # tokens of a sequence, and its place among the request's


@dataclass(eq=False)
class Job:
    """One request's pairs on their way.

    Args:
        sequences: distinct rows.
        result: float32 [len(sequences)] logits; cancel it to drop what is not computed yet.
        todo: the places of the sequences that were not handed over, the shortest first.
        clock: tokens that were handed over, counted from where all clocks were when the job came.
        queued: when it came, in seconds of the monotonic clock.
        started: when its first batch was handed over.
    """

    sequences: list[Row]
    result: "Future[np.ndarray]" = field(default_factory=Future)
    todo: list[Place] = field(default_factory=list)
    clock: float = 0.0
    queued: float = field(default_factory=time.monotonic)
    started: float | None = None

    def __post_init__(self) -> None:
        """Sort what is to be done."""
        self.todo = sorted((row.tokens, place) for place, row in enumerate(self.sequences))
        self._logits = np.empty(len(self.sequences), dtype=np.float32)
        self._left = len(self.sequences)

    def longest_first(self, most: int) -> Iterator[tuple[int, int, "Job"]]:
        """Yield the sequences still to do with at most `most` tokens, the longest first."""
        for i in range(bisect_right(self.todo, (most, len(self.sequences))) - 1, -1, -1):
            yield (*self.todo[i], self)

    def complete(self, place: int, logit: float) -> None:
        """Take in a logit; with the last one, hand over all."""
        self._logits[place] = logit
        self._left -= 1
        if not self._left and self.result.set_running_or_notify_cancel():
            self.result.set_result(self._logits)


class Scheduler:
    """The queue of a model."""

    def __init__(self, engine: Engine, batching: Batching, pad_token_id: int) -> None:
        """Start the thread that fills batches.

        Args:
            engine: computes them.
            batching: how rows are put into batches.
            pad_token_id: fills rows.
        """
        self._engine, self._batching, self._pad = engine, batching, pad_token_id
        self._jobs: list[Job] = []  # with something to do, in the order they came
        self._clock = 0.0
        self._handed_over: deque[list[tuple[Job, int]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.pace = 0.0  # pairs a second, lately; 0 before the first batch
        self.batches = self.rows = self.tokens = self.padded_tokens = 0  # handed over so far
        self._thread = threading.Thread(target=self._work, name="mlx-rerank-queue", daemon=True)
        self._thread.start()

    def submit(self, encoded: EncodedPairs) -> Job:
        """Queue the pairs of a request; any thread may.

        Raises:
            ChangedCheckpointError: another model has taken this one's place.
        """
        job = Job(encoded.sequences)
        if not job.sequences:
            job.result.set_result(np.empty(0, np.float32))
            return job
        with self._changed:
            if self._closed:
                raise ChangedCheckpointError("the model was loaded again, and this request was read with the old one")
            job.clock = self._clock
            self._jobs.append(job)
            self._changed.notify()
        return job

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or being computed."""
        with self._changed:
            return not self._jobs and not self._handed_over

    def close(self) -> None:
        """Finish what is queued, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        """Compute what comes, until closed."""
        while self._wait():
            begin = time.monotonic()
            try:
                with closing(self._engine.run(self._groups())) as results:
                    for logits in results:
                        members = self._handed_over.popleft()  # first: who has an answer finds an idle queue
                        for (job, place), logit in zip(members, logits.tolist(), strict=True):
                            job.complete(place, logit)
                        begin = self._measure(len(members), begin)
            except Exception as error:  # whatever it is, those who wait are to know, and the others to be served
                self._fail(error)

    def _wait(self) -> bool:
        """Wait for something to do; False when there will be nothing more."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            return bool(self._jobs)

    def _groups(self) -> Iterator[list[Batch]]:
        """Yield groups of batches while there is something to do."""
        while True:
            with self._changed:
                chosen = [batch for _ in range(self._batching.side_by_side) if (batch := self._next_batch())]
                if not chosen:
                    return
                self._handed_over.append([member for batch in chosen for member in batch])
            yield [self._padded(batch) for batch in chosen]

    def _next_batch(self) -> list[tuple[Job, int]]:
        """Take the pairs of the next batch out of the queue."""
        self._jobs = [job for job in self._jobs if job.todo and not job.result.cancelled()]
        if not self._jobs:
            return []
        first = min(self._jobs, key=lambda job: job.clock)
        longest, _ = first.todo[-1]
        others = [job for job in self._jobs if job is not first]
        queues = [job.longest_first(longest) for job in (first, *others)]
        # heapq.merge keeps equals in the order of the queues: the longest pair of the first job comes first.
        candidates = list(islice(merge(*queues, key=lambda row: -row[0]), self._batching.most_rows(longest)))
        lengths = np.array([tokens for tokens, _, _ in candidates])
        batch = candidates[: self._batching.rows_that_fit(lengths)]
        sharers, now = len(self._jobs), time.monotonic()
        for tokens, place, job in batch:
            job.todo.remove((tokens, place))
            job.clock += tokens
            job.started = job.started or now
            self._clock += tokens / sharers
        return [(job, place) for _, place, job in batch]

    def _padded(self, batch: list[tuple[Job, int]]) -> Batch:
        """Return a batch as arrays, and count it."""
        rows = [job.sequences[place] for job, place in batch]
        padded = pad(rows, self._pad)
        self.batches += 1
        self.rows += len(rows)
        self.tokens += padded.tokens
        self.padded_tokens += padded.input_ids.size
        return padded

    def _measure(self, pairs: int, begin: float) -> float:
        """Note how fast pairs are done; return the present time."""
        now = time.monotonic()
        pace = pairs / max(now - begin, 1e-6)
        self.pace = pace if not self.pace else self.pace + _SMOOTHING * (pace - self.pace)
        return now

    def _fail(self, error: Exception) -> None:
        """Hand the error to the jobs whose pairs were handed over."""
        failed = {job for members in self._handed_over for job, _ in members}
        self._handed_over.clear()
        with self._changed:
            self._jobs = [job for job in self._jobs if job not in failed]
        for job in failed:
            if job.result.set_running_or_notify_cancel():
                job.result.set_exception(error)
