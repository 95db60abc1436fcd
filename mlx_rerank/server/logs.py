"""Log lines: one a request, with all that is known of it but its texts."""

import logging
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pythonjsonlogger.json import JsonFormatter
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_rerank.errors import printable
from mlx_rerank.server.answers import internal_error, turn_down
from mlx_rerank.server.failures import log_failure
from mlx_rerank.server.handler import Work

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


def set_up(form: str, level: str) -> None:
    """Write the server's log to standard error.

    Args:
        form: "json", an object a line, or "text".
        level: as logging's names, in small letters.
    """
    handler = logging.StreamHandler(sys.stderr)
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
