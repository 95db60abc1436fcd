"""Checks of a machine in processes of their own, whatever becomes of these."""

import importlib
import inspect
import json
import math
import os
import signal
import subprocess
import sys
from typing import Any
from unittest.mock import Mock

import pytest
from commands import run_here

from mlx_rerank.errors import InputError
from mlx_rerank.proof import doctor
from mlx_rerank.proof.finding import Finding

TOLD = Finding("what was told before", 0.5, 1.0)
TELLING = 'print(\'{"what": "what was told before", "measured": 0.5, "bound": 1.0}\', flush=True)'


def run(code: str, limit: float = 60) -> doctor.Checked:
    return doctor.run("check", [sys.executable, "-c", code], limit)


def test_every_check_is_a_function_that_says_what_it_checks() -> None:
    for path in doctor.CHECKS.values():
        module, _, function = path.partition(".")
        check = getattr(importlib.import_module(f"mlx_rerank.proof.{module}"), function)
        assert inspect.isgeneratorfunction(check)
        assert check.__doc__.startswith("Check ")


def test_a_number_passes_up_to_its_bound() -> None:
    assert TOLD.passed
    assert Finding("", 0, 0).passed
    assert not Finding("", 1.0000001, 1).passed
    assert not Finding("", math.nan, 1).passed
    assert doctor.Checked("", (TOLD,), 1.0).passed
    assert not doctor.Checked("", (TOLD, Finding("", 2, 1)), 1.0).passed
    assert not doctor.Checked("", (TOLD,), 1.0, "ended").passed


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("import os, sys; print('a', 'Metal failed', sep='\\n', file=sys.stderr); os.abort()", "SIGABRT: Metal failed"),
        ("import os; os.abort()", "ended by SIGABRT"),
        ("raise ValueError('no device')", "ended with code 1: ValueError: no device"),
    ],
)
def test_a_process_that_ends_before_its_time(code: str, failure: str) -> None:
    checked = run(f"{TELLING}; print('half a li', end='', flush=True); {code}")
    assert checked.findings == (TOLD,)
    assert str(checked.failure).endswith(failure)
    assert not checked.passed


def test_a_process_that_hangs_is_ended_with_all_that_it_has_started() -> None:
    code = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    checked = run(f"{TELLING}; {code}", limit=1)
    assert checked.findings == (TOLD,)
    assert checked.failure == "gave no answer within 1 s"
    assert checked.seconds < 5
    assert not checked.passed


class Stuck:
    """A process that nothing ends."""

    pid = 2**22 + 1  # no process has it
    returncode = None

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def communicate(self, timeout: float) -> None:
        raise subprocess.TimeoutExpired("check", timeout, output=json.dumps(vars(TOLD)).encode() + b"\n")


def test_a_process_that_cannot_be_ended_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", Stuck)
    checked = doctor.run("check", [], 3)
    assert checked.findings == (TOLD,)
    assert checked.failure == "gave no answer within 3 s, and cannot be ended"


def test_who_ends_the_command_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = []
    monkeypatch.setattr(os, "killpg", lambda *call: killed.append(call))
    monkeypatch.setattr(subprocess, "Popen", Stuck)
    monkeypatch.setattr(Stuck, "communicate", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run("pass")
    assert killed == [(Stuck.pid, signal.SIGKILL)]


def test_a_process_that_finds_nothing_has_not_passed() -> None:
    assert run("pass").failure == "found nothing"
    assert run(TELLING).failure is None


def test_what_there_is_to_choose_from() -> None:
    with pytest.raises(InputError, match="'liver' is not a check: choose from device, float32, attention"):
        next(doctor.examine(only=["errors", "liver"]))
    with pytest.raises(InputError, match="device 'tpu' is not"):
        next(doctor.examine("tpu"))


def rows(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_the_command_tells_what_was_measured() -> None:
    machine, *found = rows(run_here("doctor", "--only", "errors", "--json", "--device", "cpu").stdout)
    assert machine["machine"]["versions"].keys() == {"mlx-rerank", "mlx"}
    assert [row.get("what") for row in found] == [
        "results of numbers that cannot be read", "wrong sums after these errors", None,
    ]  # fmt: skip
    assert [(row["check"], row["passed"], row.get("measured", 0)) for row in found] == [("errors", True, 0)] * 3
    shown = run_here("doctor", "--only", "errors").stdout.splitlines()
    assert shown[0].startswith("chip  ")
    assert shown[-3:] == [
        "ok    errors    results of numbers that cannot be read: 0, at most 0",
        "ok    errors    wrong sums after these errors: 0, at most 0",
        "all as it should be",
    ]


def test_the_command_tells_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    telling = f"{TELLING}; print('{json.dumps({'what': 'a sum', 'measured': 2, 'bound': 1, 'remedy': 'less'})}');"
    nothing = 'print(\'{"what": "no sum", "measured": NaN, "bound": 1}\', flush=True)'
    monkeypatch.setattr(doctor, "_CODE", f"{telling} {nothing}; import os; os.abort()")
    found = run_here("doctor", "--only", "errors", "--only", "packed", code=1).stdout.splitlines()[-9:]
    assert found == [
        *(f"{start}{name}    {line}" if len(name) == 6 else "" for name in ("errors", "packed") for start, line in (
            ("ok    ", "what was told before: 0.5, at most 1"),
            ("WRONG ", "a sum: 2, at most 1; less"),
            ("WRONG ", "no sum: no number, at most 1"),
            ("WRONG ", "ended by SIGABRT"),
        )),
        "not as it should be: errors, packed",
    ]  # fmt: skip
    found = rows(run_here("doctor", "--only", "errors", "--json", code=1).stdout)[1:]
    assert [row["passed"] for row in found] == [True, False, False, False]
    assert [row.get("measured") for row in found] == [0.5, 2, None, None]
    assert found[-1]["failure"] == "ended by SIGABRT"


def test_the_process_that_is_there_to_the_end_does_not_use_mlx() -> None:
    code = (
        "import sys; from mlx_rerank.cli.doctoring import doctor; doctor(only=['errors']);"
        "print({'mlx.core', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "set()"
