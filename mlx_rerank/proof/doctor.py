"""The checks of a machine that only the machine can answer, each in a process of its own.

A device that fails may end its process, or never answer. So this file, which starts the processes, does not use MLX.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from mlx_rerank.errors import InputError
from mlx_rerank.proof.finding import Finding

CHECKS = {  # names, and functions below mlx_rerank.proof: they take "gpu" or "cpu", and yield findings
    "device": "operation_checks.sums",
    "float32": "operation_checks.float32",
    "attention": "operation_checks.attention",
    "packed": "operation_checks.packed",
    "errors": "operation_checks.errors",
    "dtypes": "model_checks.dtypes",
    "batches": "model_checks.batches",
    "largest": "model_checks.largest",
    "training": "model_checks.training",
}
_LIMIT = 180.0  # seconds of a check; with a BLAS, the longest takes some ten
_ENDING = 5.0  # seconds in which a killed process ends, unless the system itself waits for the device
_CODE = "import sys; sys.path[:] = sys.argv[3:]; from mlx_rerank.proof.doctor import answer; answer(*sys.argv[1:3])"


@dataclass(frozen=True)
class Checked:
    """What became of a check.

    Args:
        name: of the check.
        findings: that its process told, in order.
        seconds: that it took.
        failure: how its process ended before its time; None where it came to its end.
    """

    name: str
    findings: tuple[Finding, ...]
    seconds: float
    failure: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the check came to its end, and everything is as it should be."""
        return self.failure is None and all(finding.passed for finding in self.findings)


def examine(device: str | None = None, only: Sequence[str] = ()) -> Iterator[Checked]:
    """Run checks one after the other, and yield what became of each.

    Args:
        device: "gpu" or "cpu"; MLX's default one if None.
        only: names of the checks to run; all of them if empty.

    Raises:
        InputError: there is no such check, or the device is no name of one.
    """
    for name in only:
        if name not in CHECKS:
            raise InputError(f"{name!r:.40} is not a check: choose from {', '.join(CHECKS)}")
    if device not in (None, "gpu", "cpu"):
        raise InputError(f"device {device!r:.40} is not 'gpu' or 'cpu'")
    for name in only or CHECKS:
        yield run(name, [sys.executable, "-c", _CODE, name, device or "", *sys.path])


def run(name: str, command: Sequence[str], limit: float = _LIMIT) -> Checked:
    """Run a check in a process, and say what became of it.

    Args:
        name: of the check.
        command: prints each finding, as `answer` does.
        limit: in seconds, after which the process is killed.
    """
    start = time.monotonic()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the parent alone, which ends this
    )  # fmt: skip
    failure = None
    try:
        told, said = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired as stopped:
        _kill(process)
        failure = f"gave no answer within {limit:g} s"
        try:
            told, said = process.communicate(timeout=_ENDING)
        except subprocess.TimeoutExpired:
            told, said = stopped.output or b"", b""
            failure += ", and cannot be ended"
    finally:
        _kill(process)
    lines = told.decode("utf-8", "replace").splitlines(keepends=True)
    findings = tuple(Finding(**json.loads(line)) for line in lines if line.endswith("\n"))
    if failure is None:
        failure = _ending(process.returncode, said.decode("utf-8", "replace"), findings)
    return Checked(name, findings, time.monotonic() - start, failure)


def answer(name: str, device: str) -> None:
    """Run a check in this process, and print each finding as JSON; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    module, _, function = CHECKS[name].partition(".")
    check = getattr(importlib.import_module(f"mlx_rerank.proof.{module}"), function)
    for finding in check(device or _default_device()):
        print(json.dumps(asdict(finding)), file=answers, flush=True)


def _default_device() -> str:
    """Return the name of the device that MLX computes on unless told otherwise."""
    from mlx_rerank.device.names import parse_device

    return parse_device(None).type.name


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End a process, with whatever it has started itself."""
    with suppress(ProcessLookupError):  # it has gone already
        os.killpg(process.pid, signal.SIGKILL)


def _ending(code: int, said: str, findings: tuple[Finding, ...]) -> str | None:
    """Return how a process ended before its time; None if it did not."""
    if code == 0:
        return None if findings else "found nothing"
    ending = f"ended with code {code}"
    with suppress(ValueError):  # a signal without a name
        ending = f"ended by {signal.Signals(-code).name}" if code < 0 else ending
    last = [line.strip() for line in said.splitlines() if line.strip()][-1:]
    return ": ".join([ending, *last])
