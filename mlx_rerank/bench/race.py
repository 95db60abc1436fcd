"""Contenders take turns at the same work, each in a process of its own, and what they took is kept.

Every contender keeps its process over the rounds, and only one works at a time. In each round every contender does
every workload once, in an order that rotates, so that a machine that gets busy or hot slows all of them alike.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from mlx_rerank.bench.contenders import OWN, Contender
from mlx_rerank.bench.measures import plan_rounds
from mlx_rerank.bench.process import Worker
from mlx_rerank.bench.texts import Workload
from mlx_rerank.errors import WorkerError

COLD = "cold start"


@dataclass
class Results:
    """What was measured, as it came.

    Args:
        rounds: a row for each contender's turn at a workload: its calls' seconds.
        logits: of each contender's first turn at a workload, by contender and workload.
        problems: what ended a contender's process, by contender.
        computed_in: the dtype of each contender's weights in memory.
    """

    rounds: list[dict[str, Any]] = field(default_factory=list)
    logits: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    computed_in: dict[str, str] = field(default_factory=dict)

    def seconds(self, contender: str, workload: str) -> list[list[float]]:
        """Return the seconds of each call, by round; of finished rounds alone."""
        return [row["seconds"] for row in self.rounds if row["contender"] == contender and row["workload"] == workload]


class Race:
    """Runs contenders in turns and keeps what they took."""

    def __init__(self, contenders: Sequence[Contender], threads: int) -> None:
        """Take note of who takes part; those that lack a module do not."""
        self.contenders = [contender for contender in contenders if not contender.missing]
        self.results = Results()
        self._threads = threads
        self._workers: dict[str, Worker] = {}

    def run(self, shared: Sequence[Workload], own: Sequence[Workload], rounds: int) -> Results:
        """Measure.

        Args:
            shared: what all contenders do.
            own: what only mlx-rerank in float32 does.
            rounds: how often.
        """
        names = [contender.name for contender in self.contenders]
        turns = len(names) * (1 + len(shared)) + len(own) * (OWN in names)
        with ExitStack() as stack, tqdm(total=turns * rounds, desc="Measuring", disable=None, leave=False) as bar:
            for contender in self.contenders:
                self._start(contender, stack, shared)
            for number, order in enumerate(plan_rounds(names, rounds), 1):
                for name in order:
                    self._cold_start(number, name)
                    bar.update()
                for workload in shared:
                    for name in order:
                        self._turn(number, name, workload)
                        bar.update()
                for workload in own if OWN in names else ():
                    self._turn(number, OWN, workload)
                    bar.update()
        return self.results

    def _start(self, contender: Contender, stack: ExitStack, shared: Sequence[Workload]) -> None:
        """Start a contender's process, and let it do a call that does not count."""
        try:
            worker = stack.enter_context(Worker(contender, self._threads))
            if shared:
                worker.score(shared[0].calls[0])
        except WorkerError as error:
            self.results.problems[contender.name] = str(error)
            return
        self._workers[contender.name] = worker
        self.results.computed_in[contender.name] = worker.computed_in

    def _cold_start(self, number: int, name: str) -> None:
        """Time a fresh process up to its first score."""
        if name in self._workers:
            try:
                with Worker(self._workers[name].contender, self._threads) as worker:
                    self._note(number, name, COLD, [worker.start_seconds])
            except WorkerError as error:
                self._drop(name, error)

    def _turn(self, number: int, name: str, workload: Workload) -> None:
        """Let a contender do a workload."""
        if name not in self._workers:
            return
        try:
            answers = [self._workers[name].score(call) for call in workload.calls]
        except WorkerError as error:
            self._drop(name, error)
            return
        self._note(number, name, workload.name, [answer.seconds for answer in answers])
        logits = [logit for answer in answers for logit in answer.logits]
        self.results.logits.setdefault(name, {}).setdefault(workload.name, logits)

    def _note(self, number: int, name: str, workload: str, seconds: list[float]) -> None:
        """Keep what a turn took."""
        self.results.rounds.append({"round": number, "contender": name, "workload": workload, "seconds": seconds})

    def _drop(self, name: str, error: WorkerError) -> None:
        """Go on without a contender."""
        self.results.problems[name] = str(error)
        del self._workers[name]
