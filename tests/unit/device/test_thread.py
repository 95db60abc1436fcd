"""The device thread: one per process, never ending, and a clean exit whatever happens."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
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


class Recorded:
    """Jobs of three parts that note what is done; the device is at work on a job until its gate is open."""

    def __init__(self, *names: str) -> None:
        self.events: list[str] = []
        self.gates = {name: threading.Event() for name in names}
        self.started = {name: threading.Event() for name in names}
        self.prepared = {name: threading.Event() for name in names}

    def submit(self, name: str) -> "Future[str]":
        return device_thread().submit_parts(self._prepare, self._start, self._finish, name)

    def _prepare(self, name: str) -> str:
        self.events.append(f"prepare {name}")
        self.prepared[name].set()
        return name

    def _start(self, name: str) -> None:
        self.events.append(f"start {name}")
        self.started[name].set()

    def _finish(self, name: str) -> str:
        assert self.gates[name].wait(10)
        self.events.append(f"finish {name}")
        return name * 2


def test_a_job_is_prepared_while_the_one_before_it_runs_and_started_after_it() -> None:
    jobs, gate = Recorded(*"abc"), threading.Event()
    hold = device_thread().submit(gate.wait)  # until all are queued
    first, cancelled, second = (jobs.submit(name) for name in "abc")
    plain = device_thread().submit(jobs.events.append, "plain")
    assert cancelled.cancel()
    gate.set()
    assert hold.result()
    assert jobs.prepared["c"].wait(10)
    assert jobs.events == ["prepare a", "start a", "prepare c"]
    jobs.gates["a"].set()
    assert first.result(10) == "aa"
    assert jobs.started["c"].wait(10)
    assert not plain.done()
    jobs.gates["c"].set()
    assert (second.result(10), plain.result(10)) == ("cc", None)
    assert jobs.events[3:] == ["finish a", "start c", "finish c", "plain"]


@pytest.mark.parametrize("slow", ["prepare", "start", "finish"])
def test_a_result_does_not_wait_for_the_next_job(slow: str) -> None:
    """Whatever the next one takes its time for."""
    gate, parts = threading.Event(), ("prepare", "start", "finish")
    wait = [(lambda *_: gate.wait(10)) if part == slow else (lambda *_: True) for part in parts]
    thread, ready = device_thread(), threading.Event()
    first = thread.submit_parts(str, lambda _: None, lambda name: (ready.wait(10), name)[1], "first")
    second = thread.submit_parts(*wait)
    ready.set()
    assert first.result(10) == "first"
    assert not second.done()
    gate.set()
    assert second.result(10)


@pytest.mark.parametrize("broken", ["prepare", "start", "finish"])
def test_errors_of_jobs_in_parts_are_their_own(broken: str) -> None:
    thread, fine = device_thread(), lambda *_: "fine"
    fail = lambda *_: 1 / 0  # noqa: E731
    parts = [fail if part == broken else fine for part in ("prepare", "start", "finish")]
    before, bad, after = (thread.submit_parts(*of) for of in ([fine] * 3, parts, [fine] * 3))
    with pytest.raises(ZeroDivisionError):
        bad.result(10)
    assert before.result(10) == after.result(10) == "fine"


def test_settling_within_a_job_waits_for_the_one_before_it() -> None:
    jobs, thread = Recorded("a"), device_thread()
    first = jobs.submit("a")
    prepare = lambda: (jobs.prepared["a"].set(), thread.settle(), jobs.events.append("settled"))  # noqa: E731
    jobs.prepared["a"].clear()
    second = thread.submit_parts(prepare, lambda _: None, lambda _: "second")
    assert jobs.prepared["a"].wait(10)  # until it is about to settle
    jobs.gates["a"].set()
    assert (first.result(10), second.result(10)) == ("aa", "second")
    assert jobs.events == ["prepare a", "start a", "finish a", "settled"]


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

    def start(name: str) -> None:
        ask()
        if name == "too large":
            error.append("out of memory")

    def finish(name: str) -> str:
        ask()
        return "garbage" if name == "too large" else f"result of {name}"

    def outcomes(*names: str) -> list[str]:
        gate.clear()
        thread.submit(gate.wait)
        futures = [thread.submit_parts(str, start, finish, name) for name in names]
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
