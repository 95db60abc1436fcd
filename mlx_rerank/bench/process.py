"""The parent's side of a contender's process: it starts, asks, times and ends it."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from mlx_rerank.bench.contenders import Contender
from mlx_rerank.errors import WorkerError

_SCRIPT = Path(__file__).with_name("worker.py")
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip
_STDERR_LINES = 5
_SETTLE = 0.1  # seconds in which the BLAS threads of whoever worked last stop spinning


@dataclass(frozen=True)
class Answer:
    """What a contender made of pairs.

    Args:
        seconds: that it took, texts in to logits out.
        logits: one a pair.
        mlx: bytes that MLX holds by kind, where it runs.
        process_peak: most bytes that the process held in memory so far.
    """

    seconds: float
    logits: list[float]
    mlx: dict[str, int] | None
    process_peak: int


class Worker:
    """A contender in a process of its own, which lives until this is closed or the parent is gone."""

    def __init__(self, contender: Contender, threads: int) -> None:
        """Start the process and wait for its first score.

        Args:
            contender: who.
            threads: for its matrix products and its tokenizer.

        Raises:
            WorkerError: the process ended before; its last lines on stderr say why.
        """
        self.contender = contender
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"HF_HUB_OFFLINE": "1"}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  close() closes it
        command = [sys.executable, str(_SCRIPT), json.dumps(asdict(contender))]
        start = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=environment,
            encoding="utf-8", start_new_session=True,  # Ctrl-C reaches the parent alone, which ends this
        )  # fmt: skip
        try:
            facts = self._answer()
            self.start_seconds = time.perf_counter() - start
            self.computed_in: str = facts["computed_in"]
            self.mlx: dict[str, int] | None = facts["mlx"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Worker":
        """Return the worker, which is ready."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def score(self, pairs: list[tuple[str, str]]) -> Answer:
        """Hand over pairs and wait for their logits.

        Raises:
            WorkerError: the process ended before it answered.
        """
        time.sleep(_SETTLE)
        assert self._process.stdin
        with suppress(OSError):  # it has gone; reading its answer tells why
            self._process.stdin.write(json.dumps(pairs) + "\n")
            self._process.stdin.flush()
        answer = Answer(**self._answer())
        if len(answer.logits) != len(pairs) or not all(map(math.isfinite, answer.logits)):
            raise WorkerError(f"{self.contender.name} has no finite logit for each of {len(pairs)} pairs")
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing."""
        with suppress(ProcessLookupError):  # it has gone already
            os.killpg(self.pid, signal.SIGKILL)  # with whatever it has started itself
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._stderr):
            with suppress(OSError):  # what was left to send to a process that is gone
                pipe.close()  # pyright: ignore[reportOptionalMemberAccess]

    def _answer(self) -> dict[str, Any]:
        """Read one answer."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._stderr.seek(0)
        lines = [line for line in self._stderr.read().decode("utf-8", "replace").splitlines() if line.strip()]
        told = " | ".join(line.strip() for line in lines[-_STDERR_LINES:]) or "(nothing on stderr)"
        raise WorkerError(f"{self.contender.name} ended with code {code}: {told}")
