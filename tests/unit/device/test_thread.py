"""The device thread: one per process, never ending, and a clean exit whatever happens."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlx_rerank.device import thread as thread_module
from mlx_rerank.device.thread import device_thread


def test_there_is_one_and_it_runs_in_order() -> None:
    thread = device_thread()
    assert device_thread() is thread
    ran: list[int] = []
    futures = [thread.submit(ran.append, i) for i in range(100)]
    for future in futures:
        future.result()
    assert ran == list(range(100))
    assert thread.submit(threading.current_thread).result().name == "mlx-rerank"


def test_errors_reach_the_caller_and_the_thread_goes_on() -> None:
    thread = device_thread()
    with pytest.raises(ZeroDivisionError):
        thread.submit(lambda: 1 / 0).result()
    assert thread.submit(lambda: "alive").result() == "alive"


def test_a_cancelled_job_is_not_run() -> None:
    thread, gate, ran = device_thread(), threading.Event(), []
    first = thread.submit(gate.wait)
    second = thread.submit(ran.append, "second")
    assert second.cancel()
    gate.set()
    assert first.result()
    thread.submit(int).result()
    assert ran == []


def test_a_split_job_is_finished_after_the_next_is_started() -> None:
    thread, gate, events = device_thread(), threading.Event(), []

    def start(name: str) -> str:
        events.append(f"start {name}")
        return name

    def finish(name: str) -> str:
        events.append(f"finish {name}")
        return name * 2

    hold = thread.submit(gate.wait)  # until all are queued
    first, cancelled, second = (thread.submit_split(start, finish, name) for name in "abc")
    plain = thread.submit(events.append, "plain")
    assert cancelled.cancel()
    gate.set()
    assert hold.result()
    assert (first.result(), second.result(), plain.result()) == ("aa", "cc", None)
    assert events == ["start a", "finish a", "start c", "finish c", "plain"]  # none was there to start in b's turn
    events.clear()
    gate.clear()
    thread.submit(gate.wait)
    last = [thread.submit_split(start, finish, name) for name in "abc"]
    gate.set()
    assert [future.result() for future in last] == ["aa", "bb", "cc"]
    assert events == ["start a", "start b", "finish a", "start c", "finish b", "finish c"]


@pytest.mark.parametrize("broken", ["start", "finish"])
def test_errors_of_split_jobs_are_their_own(broken: str) -> None:
    thread, fine = device_thread(), lambda *_: "fine"
    fail = lambda *_: 1 / 0  # noqa: E731
    bad = thread.submit_split(*((fail, fine) if broken == "start" else (fine, fail)))
    good = thread.submit_split(fine, fine)
    with pytest.raises(ZeroDivisionError):
        bad.result()
    assert good.result() == "fine"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_is_told_so_instead_of_hanging(tiny: Path) -> None:
    code = (
        "import asyncio, os, sys\n"
        "from mlx_rerank import Reranker\n"
        "from mlx_rerank.errors import DeviceError\n"
        "reranker = Reranker(sys.argv[1], device='cpu')\n"
        "asyncio.run(reranker.arank('a', ['b', 'c']))\n"  # so that all threads that a call may need have run
        "child = os.fork()\n"
        "if not child:\n"
        "    refused = 0\n"
        "    calls = [lambda: reranker.score('a', 'b'), lambda: Reranker(sys.argv[1], device='cpu'), reranker.unload,\n"
        "        lambda: reranker.rank('a', ['b'] * 600, timeout=30),\n"
        "        lambda: list(reranker.score_stream([('a', 'b')])),\n"
        "        lambda: reranker.explain('a', 'b'), lambda: asyncio.run(reranker.arank('a', ['b', 'c']))]\n"
        "    for work in calls:\n"
        "        try: work()\n"
        "        except DeviceError: refused += 1\n"
        "    os._exit(refused)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tiny)], check=False, timeout=60)
    assert result.returncode == 7


def test_the_process_ends_cleanly_after_scoring(tiny: Path) -> None:
    # A thread that has used MLX aborted about one process in five when it ended during the interpreter's shutdown.
    code = "import sys; from mlx_rerank import Reranker; print(Reranker(sys.argv[1]).score('panda', 'a bear') > 0)"

    def run(_: int) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tiny)], capture_output=True, text=True, check=False, timeout=120
        )
        return done.returncode, done.stdout, done.stderr

    with ThreadPoolExecutor(2) as two_at_a_time:
        assert list(two_at_a_time.map(run, range(5))) == [(0, "True\n", "")] * 5


def test_an_error_of_the_device_does_not_cross_to_another_job() -> None:
    """As MLX has it: one error for all that runs, raised by whatever asks next, and then forgotten."""
    thread, gate, error = device_thread(), threading.Event(), list[str]()

    def ask() -> None:
        if error:
            raise RuntimeError(error.pop())

    def start(name: str) -> str:
        ask()
        if name == "too large":
            error.append("out of memory")
        return name

    def finish(name: str) -> str:
        ask()
        return "garbage" if name == "too large" else f"result of {name}"

    def outcomes(*names: str) -> list[str]:
        gate.clear()
        thread.submit(gate.wait)
        futures = [thread.submit_split(start, finish, name) for name in names]
        gate.set()
        return [str(future.exception() or future.result()) for future in futures]

    assert outcomes("too large", "b", "c") == ["out of memory", "result of b", "result of c"]
    assert outcomes("a", "too large") == ["result of a", "out of memory"]
    assert outcomes("a", "too large", "c") == ["result of a", "out of memory", "result of c"]
    assert outcomes("too large", "too large", "c") == ["out of memory", "out of memory", "result of c"]


def test_an_error_while_idle_does_not_end_the_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(thread_module, "_IDLE", 0.01)
    monkeypatch.setattr(thread_module.memory, "give_back", fail)
    thread = device_thread()
    assert thread.submit(lambda: "first").result(10) == "first"  # the wait after it is short
    time.sleep(0.1)
    assert thread.submit(lambda: "second").result(10) == "second"
    assert "planted" in caplog.text
