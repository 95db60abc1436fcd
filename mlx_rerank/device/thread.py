"""The one thread of the process that talks to MLX.

MLX streams belong to the thread that made them: an array built in one thread cannot be evaluated in another. So one
thread loads every model and runs every batch, and all others hand it functions and wait for what they return.

The thread never ends. A thread that has used MLX runs MLX's Python code as it ends; if the interpreter is shutting down
then, the process aborts.
"""

import atexit
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from mlx_rerank.device import lanes, memory
from mlx_rerank.device.arrays import drain
from mlx_rerank.errors import DeviceError

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
Job = tuple[Future[Any], Callable[[], Any], Callable[[Any], Any] | None]  # the last finishes what the call has started
logger = logging.getLogger("mlx_rerank")

_IDLE = 5.0  # seconds without a job after which memory kept for later jobs is given back


@dataclass
class _Started:
    """A job of two parts whose first has run; both can be run again."""

    future: Future[Any]
    start: Callable[[], Any]
    finish: Callable[[Any], Any]
    result: Any = None

    def end(self) -> Any:
        """Run the second part."""
        return self.finish(self.result)

    def whole(self) -> Any:
        """Run both parts."""
        return self.finish(self.start())


class DeviceThread:
    """A thread that runs one job after the other, in the order they came."""

    def __init__(self) -> None:
        """Start the thread."""
        self.pid = os.getpid()
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="mlx-rerank", daemon=True).start()
        atexit.register(self._park)

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call and return the future of its result, which may be cancelled while it waits its turn.

        Raises:
            DeviceError: this is a fork of the process that the thread runs in.
        """
        return self._put(lambda: function(*args, **kwargs), None)

    def submit_split(
        self, start: Callable[P, S], finish: Callable[[S], T], *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Queue a call of two parts: one that sets the device to work, and one that waits for what it computes.

        The next such call is started before this one is waited for, so that the device always has something to do.
        Where either fails, both are done again, one after the other: the device keeps one error for all its work and
        raises it once, so that it may reach either, and the other would take garbage for its result.

        Args:
            start: may be called twice.
            finish: what waits for the result of start.
            args: of start.
            kwargs: of start.

        Raises:
            DeviceError: this is a fork of the process that the thread runs in.
        """
        return self._put(lambda: start(*args, **kwargs), finish)

    def _put(self, call: Callable[[], Any], finish: Callable[[Any], Any] | None) -> Future[Any]:
        """Queue a job and return its future."""
        if os.getpid() != self.pid:
            raise DeviceError(
                "this process was forked from one that had used MLX, which does not survive a fork: start processes "
                "with multiprocessing's 'spawn', or fork before the first model is loaded"
            )
        future: Future[Any] = Future()
        self._jobs.put((future, call, finish))
        return future

    def _work(self) -> None:
        """Run jobs for ever."""
        started: _Started | None = None
        while True:
            started = self._turn(started)  # a call of its own, so that nothing of a finished job is kept while waiting

    def _turn(self, started: _Started | None) -> _Started | None:
        """Start the next job, then finish the one that was started before it; return what is left to finish."""
        if started and self._jobs.empty():
            return _settle(started.future, started.end)
        future, call, finish = self._next()
        wanted = future.set_running_or_notify_cancel()
        if started and wanted and finish:
            return _overlap(started, _Started(future, call, finish))
        if started:
            _settle(started.future, started.end)
        if not wanted:
            return None
        return _begin(_Started(future, call, finish)) if finish else _settle(future, call)

    def _next(self) -> Job:
        """Wait for the next job; where none comes for a while, give memory back, once."""
        try:
            return self._jobs.get(timeout=_IDLE)
        except queue.Empty:
            try:
                memory.give_back()
            except Exception as error:  # the thread has to go on: without it every call would wait for ever
                logger.warning("memory was not given back while the device was idle: %s", error)
            return self._jobs.get()

    def _park(self) -> None:
        """Let the running job finish and the thread wait for ever, before the interpreter shuts down."""
        parked = threading.Event()

        def park() -> None:
            parked.set()
            threading.Event().wait()

        if os.getpid() == self.pid:
            self.submit(park)
            parked.wait()
            time.sleep(0.01)  # the thread has said that it is about to wait: let it begin


_thread: DeviceThread | None = None
_starting = threading.Lock()


def device_thread() -> DeviceThread:
    """Return the process's device thread, started at the first call. A fork gets its parent's, which refuses work."""
    global _thread
    with _starting:
        if _thread is None:
            _thread = DeviceThread()
        return _thread


def _overlap(started: _Started, following: _Started) -> _Started | None:
    """Start one job, then finish the one before it; return what is left to finish."""
    try:
        following.result = following.start()
        result = started.end()
    except BaseException:  # each is told its own, where it runs alone
        drain(lanes.streams())
        _settle(started.future, started.whole)
        return _settle(following.future, following.whole)
    started.future.set_result(result)
    return following


def _begin(following: _Started) -> _Started | None:
    """Start a job while no other is under way; return what is left to finish."""
    try:
        following.result = following.start()
    except BaseException as error:
        return _fail(following.future, error)
    return following


def _settle(future: Future[Any], call: Callable[[], Any]) -> None:
    """Run the last part of a job, which may be all of it, and hand over its result or its error."""
    try:
        future.set_result(call())
    except BaseException as error:
        _fail(future, error)


def _fail(future: Future[Any], error: BaseException) -> None:
    """Hand over a job's error, once MLX has raised all others of it."""
    drain(lanes.streams())
    future.set_exception(error)
