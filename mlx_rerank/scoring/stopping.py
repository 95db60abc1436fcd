"""When a call ends before its work does: at a deadline, or when an event is set."""

import math
import threading
import time
from concurrent import futures
from numbers import Real
from typing import TypedDict, TypeVar

from mlx_rerank.errors import CancelledError, DeadlineError, InputError, StoppedError

T = TypeVar("T")
_POLL = 0.02  # seconds between two looks at an event, which cannot be waited for along with a future
_LONG = 3600.0  # seconds; a timeout may be longer than a lock can wait


class Stopped(Exception):  # noqa: N818 - a signal
    """A call is to end now. Callers never see it: they get an error of `kind` that says what was scored until then.

    Args:
        kind: the error that it becomes.
        circumstances: how that error's sentence goes on after "3 of 9 pairs were scored".
    """

    def __init__(self, kind: type[StoppedError], circumstances: str) -> None:
        super().__init__(circumstances)
        self.kind = kind
        self.circumstances = circumstances


class Stop:
    """When to stop; never, unless told so."""

    def __init__(self, timeout: float | None = None, cancel: threading.Event | None = None) -> None:
        """Start the clock.

        Args:
            timeout: seconds from now.
            cancel: an event that may be set from another thread.

        Raises:
            InputError: timeout is not a positive finite number, or cancel is not an event.
        """
        number = isinstance(timeout, Real) and not isinstance(timeout, bool)
        if timeout is not None and not (number and 0 < timeout < math.inf):
            raise InputError(f"timeout must be a finite number of seconds above 0, or None, not {timeout!r}")
        if cancel is not None and not callable(getattr(cancel, "is_set", None)):
            raise InputError(f"cancel must have is_set(), as a threading.Event has, or be None, not {cancel!r}")
        self._timeout = timeout
        self._deadline = math.inf if timeout is None else time.monotonic() + float(timeout)
        self._cancel = cancel
        self.possible = timeout is not None or cancel is not None

    def check(self) -> None:
        """Go on, or raise Stopped where it is time to end."""
        if self._cancel is not None and self._cancel.is_set():
            raise Stopped(CancelledError, "when cancel was set: score the others in another call")
        if time.monotonic() >= self._deadline:
            remedy = f"allow more than timeout={self._timeout:g}, or give fewer or shorter documents"
            raise Stopped(DeadlineError, f"in {self._timeout:g} s: {remedy}")

    def wait(self, future: "futures.Future[T]") -> T:
        """Return a future's result, or raise Stopped where the end comes first."""
        longest = _LONG if self._cancel is None else _POLL
        while self.possible and not future.done():
            self.check()
            futures.wait([future], timeout=min(longest, max(0.0, self._deadline - time.monotonic())))
        return future.result()


class Control(TypedDict, total=False):
    """Arguments of every call that scores."""

    show_progress: bool | None
    timeout: float | None
    cancel: threading.Event | None
