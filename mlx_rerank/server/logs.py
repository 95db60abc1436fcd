"""Log lines: one a request, with all that is known of it but its texts."""

import logging
import os
import queue
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from pythonjsonlogger.json import JsonFormatter
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_rerank.errors import printable
from mlx_rerank.server.answers import internal_error, turn_down
from mlx_rerank.server.failures import log_failure
from mlx_rerank.server.handler import Work

_LINES = 1000  # that wait to be written; more are dropped
_LAST_LINES = 1.0  # seconds in which they are written at the end
CLIENT_GONE = 499  # not of HTTP: nobody is there to read an answer
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}

logger = logging.getLogger("mlx_rerank.server")


class _TextFormatter(logging.Formatter):
    """Puts a line's facts after its message, as name=value; no text can end its line and begin another."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
        """Return the line."""
        facts = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        words = " ".join(f"{name}={value}" for name, value in facts.items() if value is not None)
        return printable(f"{super().formatMessage(record)} {words}".rstrip())

    def formatException(self, ei: Any) -> str:  # noqa: N802 -- logging's name
        """Return a traceback, its lines set off from those of the log."""
        return "\n".join(f"    {printable(line)}" for line in super().formatException(ei).splitlines())


class LineQueue(logging.Handler):
    """Hands lines to a thread that writes them, so that nobody waits for who reads the log; too many are dropped.

    Not the standard library's QueueListener: Python would wait for it, and for locks that it holds, at its end.
    """

    def __init__(self, descriptor: int) -> None:
        """Start the thread.

        Args:
            descriptor: of the file that is written to.
        """
        super().__init__()
        self._descriptor = descriptor
        self._lines: queue.Queue[str | None] = queue.Queue(_LINES)
        self._dropped, self._open = 0, True
        self._thread = threading.Thread(target=self._write, name="mlx-rerank-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line, or drop it; the next one that finds room is preceded by one that says how many were dropped."""
        try:
            if self._dropped:
                self._lines.put_nowait(self.format(_told(self._dropped)))
                self._dropped = 0
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Wait until all lines are written, but not for ever."""
        if self._open:  # logging closes it once more, at the end of Python
            self._open = False
            with suppress(queue.Full):
                self._lines.put(None, timeout=_LAST_LINES)
                self._thread.join(_LAST_LINES)
        super().close()

    def _write(self) -> None:
        """Write lines until there are no more."""
        while (line := self._lines.get()) is not None:
            rest = f"{line}\n".encode(errors="backslashreplace")
            with suppress(OSError):  # who reads the log has gone; another line may fare better
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]


def _told(dropped: int) -> logging.LogRecord:
    """Return the line that says how many others are not there."""
    message, facts = "lines were dropped, as nobody read them", {"lines": dropped}
    return logger.makeRecord(logger.name, logging.WARNING, "", 0, message, (), None, extra=facts)


def set_up(form: str, level: str) -> LineQueue:
    """Write the server's log to standard error.

    Args:
        form: "json", an object a line, or "text".
        level: as logging's names, in small letters.

    Returns:
        What writes it; to be closed.
    """
    stderr = sys.__stderr__  # None where it was closed before the start: then its number may be another file's
    handler = LineQueue(os.open(os.devnull, os.O_WRONLY) if stderr is None else stderr.fileno())
    if form == "json":
        names = {"levelname": "level", "asctime": "time", "name": "logger"}
        handler.setFormatter(JsonFormatter("{asctime}{levelname}{name}{message}", style="{", rename_fields=names))
    else:
        handler.setFormatter(_TextFormatter("{asctime} {levelname:<7} {message}", style="{"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("mlx_rerank").setLevel(level.upper())
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return handler


class RequestLog:
    """Gives every request an id, logs its end, and counts it."""

    def __init__(self, app: ASGIApp, count: Callable[[str, int, float, Work | None], None]) -> None:
        """Take the application and a function that counts: it is given route, status, seconds and what was computed."""
        self._app, self._count = app, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status, identity, started = time.monotonic(), CLIENT_GONE, uuid.uuid4().hex, False
        state: dict[str, Any] = scope.setdefault("state", {})

        async def send_with_id(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                started, status = True, message["status"]
                MutableHeaders(scope=message)["x-request-id"] = identity
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # of the layers below, whose own code should have none: the server is to go on
            log_failure(error)
            status = 500
            if not started:
                await turn_down(internal_error(), scope, receive, send_with_id)
        finally:
            seconds, work = time.monotonic() - begin, state.get("work")
            route = getattr(scope.get("route"), "path", None)  # of ours: a client's own words must not become labels
            route = "other" if route is None else scope.get("root_path", "") + route
            self._count(route, status, seconds, work)
            self._log(scope, route, status, identity, seconds, work)

    def _log(self, scope: Scope, route: str, status: int, identity: str, seconds: float, work: Work | None) -> None:
        """Write a line."""
        facts = {"id": identity, "method": scope["method"], "route": route, "status": status}
        taken = (
            {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(work).items()}
            if work
            else {}
        )
        level = logging.INFO if work or status >= 400 else logging.DEBUG
        logger.log(level, "request", extra=facts | {"seconds": round(seconds, 4)} | taken)
