"""The threads of the process that talk to MLX.

MLX streams belong to the thread that made them: an array built in one thread cannot be evaluated in another. So one
thread loads every model and starts every batch, and all others hand it functions and wait for what they return. What it
has started may be waited for anywhere. A second thread does that, so that a result is handed over as soon as it is
there, whatever the first one is doing for the next batch.

The threads never end. A thread that has used MLX runs MLX's Python code as it ends; if the interpreter is shutting down
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
from functools import partial
from typing import Any, ParamSpec, TypeVar

from mlx_rerank.device import lanes, memory
from mlx_rerank.device.arrays import drain
from mlx_rerank.errors import DeviceError

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
logger = logging.getLogger("mlx_rerank")

_IDLE = 5.0  # seconds without a job after which memory kept for later jobs is given back; see `stay_ready`


@dataclass(frozen=True)
class _Job:
    """A call, or one of three parts whose first this is.

    Args:
        future: of its result.
        call: all of it, or what prepares the work.
        start: sets the device to work on what was prepared.
        finish: waits for that, and returns the result.
    """

    future: Future[Any]
    call: Callable[[], Any]
    start: Callable[[Any], object] | None = None
    finish: Callable[[Any], Any] | None = None


class _Finisher:
    """A thread that waits for what the device was set to work on, one job at a time, and hands over its result."""

    def __init__(self, on_error: Callable[[], object]) -> None:
        """Start the thread.

        Args:
            on_error: called when a job has failed; `wait` then returns which.
        """
        self._on_error = on_error
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._free = threading.Event()
        self._free.set()
        self._failure: tuple[Future[Any], BaseException] | None = None
        threading.Thread(target=self._work, name="mlx-rerank-finisher", daemon=True).start()

    def take(self, future: Future[Any], finish: Callable[[], Any]) -> None:
        """Take a job over; its predecessor has to be finished."""
        self._free.clear()
        self._jobs.put((future, finish))

    @property
    def free(self) -> bool:
        """Whether nothing is under way."""
        return self._free.is_set()

    def wait(self) -> tuple[Future[Any], BaseException] | None:
        """Wait until nothing is under way; return the job that failed, with its error, once."""
        self._free.wait()
        failure, self._failure = self._failure, None
        return failure

    def _work(self) -> None:
        """Finish jobs for ever."""
        while True:
            self._turn()  # a call of its own, so that nothing of a finished job is kept while waiting

    def _turn(self) -> None:
        """Finish the next job."""
        future, finish = self._jobs.get()
        try:
            result = finish()
        except BaseException as error:
            self._failure = future, error
            self._free.set()
            self._on_error()
            return
        del finish  # and with it the arrays, before the device begins with the next ones
        self._free.set()  # first, since the device has nothing to do until then
        future.set_result(result)


class DeviceThread:
    """A thread that runs one job after the other, in the order they came."""

    def __init__(self) -> None:
        """Start the thread."""
        self.pid = os.getpid()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._finisher = _Finisher(lambda: self._jobs.put(None))
        threading.Thread(target=self._work, name="mlx-rerank", daemon=True).start()
        atexit.register(self._park)

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call and return the future of its result, which may be cancelled while it waits its turn.

        Raises:
            DeviceError: this is a fork of the process that the thread runs in.
        """
        return self._put(_Job(Future(), partial(function, *args, **kwargs)))

    def submit_parts(
        self,
        prepare: Callable[P, S],
        start: Callable[[S], object],
        finish: Callable[[S], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Future[T]:
        """Queue a call of three parts, and return its future as `submit` does.

        The next call is prepared while the device works on this one, and started when this one is finished: the device
        keeps one error for all its work and raises it once, to whoever asks first. If two were under way, it might
        reach the other one, and this one would take garbage for its result.

        Args:
            prepare: of args and kwargs; must not have the device do anything, unless `settle` was called before.
            start: sets the device to work on what was prepared.
            finish: of the same, called in another thread: waits for the device, and returns the result.
            args: of prepare.
            kwargs: of prepare.

        Raises:
            DeviceError: this is a fork of the process that the thread runs in.
        """
        return self._put(_Job(Future(), partial(prepare, *args, **kwargs), start, finish))

    def settle(self) -> None:
        """Wait until the device has nothing to do; in this thread alone."""
        failure = self._finisher.wait()
        if failure:
            _fail(*failure)

    def _put(self, job: _Job) -> Future[Any]:
        """Queue a job and return its future."""
        if os.getpid() != self.pid:
            raise DeviceError(
                "this process was forked from one that had used MLX, which does not survive a fork: start processes "
                "with multiprocessing's 'spawn', or fork before the first model is loaded"
            )
        self._jobs.put(job)
        return job.future

    def _work(self) -> None:
        """Run jobs for ever."""
        while True:
            self._turn()  # a call of its own, so that nothing of a finished job is kept while waiting

    def _turn(self) -> None:
        """Run the next job, or its first parts; or hand over the error that the one before it has met."""
        job = self._next()
        if job is None:
            self.settle()
        elif job.future.set_running_or_notify_cancel():
            try:
                self._run(job)
            except BaseException as error:
                self.settle()
                _fail(job.future, error)

    def _run(self, job: _Job) -> None:
        """Run a job; its errors are raised here, unless they are met in finishing it."""
        if not (job.start and job.finish):
            self.settle()
            job.future.set_result(job.call())
            return
        prepared = job.call()
        self.settle()
        job.start(prepared)
        self._finisher.take(job.future, partial(job.finish, prepared))

    def _next(self) -> _Job | None:
        """Wait for the next job, or for the end of the last; where none comes for a while, give memory back, once."""
        try:
            return self._jobs.get(timeout=_IDLE)
        except queue.Empty:
            if not self._finisher.free:
                return None  # a long job is no idle time
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


def stay_ready(seconds: float) -> None:
    """Keep memory for later jobs so long after the last one, in place of a few seconds."""
    global _IDLE
    _IDLE = seconds


def _fail(future: Future[Any], error: BaseException) -> None:
    """Hand over a job's error, once MLX has raised all others of it."""
    drain(lanes.streams())
    future.set_exception(error)
