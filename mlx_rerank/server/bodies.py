"""Request bodies: JSON and nothing but JSON, read in time."""

import asyncio
import json
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_rerank.errors import RefusedError

_DEEPEST = 64  # levels of nesting; no client needs more than four
_BODIES = 16  # bodies of the largest size that may be held at once, or more smaller ones


class JsonRequest(Request):
    """A request whose body is strict JSON: UTF-8, no NaN, no lone surrogates, not nested without end.

    The names of its fields are left in `state.fields`, because they decide the dialect.
    """

    async def json(self) -> Any:
        """Return what the body says.

        Raises:
            RefusedError: it is not JSON.
        """
        body = await self.body()
        try:
            text = body.decode("utf-8-sig")
            value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
            if "\\ud" in text.lower():
                json.dumps(value, ensure_ascii=False).encode()
        except (UnicodeDecodeError, UnicodeEncodeError) as error:
            raise RefusedError(400, "invalid_json", f"the body is not UTF-8 text: {error.reason}") from None
        except RecursionError:
            raise RefusedError(400, "invalid_json", "the body is nested too deeply: send a flat object") from None
        except ValueError as error:
            raise RefusedError(400, "invalid_json", f"the body is not JSON: {str(error)[:200]}") from None
        if _depth(value) > _DEEPEST:
            raise RefusedError(400, "invalid_json", f"the body is nested more than {_DEEPEST} deep: send a flat object")
        if isinstance(value, dict):
            self.state.fields = {name for name, given in value.items() if name != "texts" or given is not None}
            self._count(value)
        return value

    def _count(self, value: dict[str, Any]) -> None:
        """Refuse lists that are too long, before each of their items is looked at."""
        most = self.app.state.most_items
        for name, items in value.items():
            if isinstance(items, list) and len(items) > most:
                message = f"{len(items)} {name[:40]} are more than the {most} that a request may have: send fewer"
                raise RefusedError(422, "too_many_documents", message, param=name[:40])


class JsonRoute(APIRoute):
    """A route whose requests are read as `JsonRequest`, and whose content type must be JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request."""
        answer = super().get_route_handler()

        async def read(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if request.method == "POST" and kind != "application/json" and not kind.endswith("+json"):
                message = (
                    f"the body is {kind[:80] or 'of no type'}: send JSON with the header Content-Type: application/json"
                )
                raise RefusedError(415, "unsupported_media_type", message)
            return await answer(JsonRequest(request.scope, request.receive))

        return read


class BoundedBody:
    """Gives up on bodies that are too long, too slow to arrive, or too many at once."""

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        """Take the application, the most bytes of a body, and the seconds in which it must arrive."""
        self._app, self._most, self._seconds = app, most, seconds
        self._held = 0  # bytes of all bodies whose requests are not answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with a `receive` that raises RefusedError beyond a bound."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        deadline, size, complete = time.monotonic() + self._seconds, 0, False

        async def receive_within_bounds() -> Message:
            nonlocal size, complete
            if complete:  # only the client's disconnect can still come, at any time
                return await receive()
            self._check(int(announced) if announced.isdecimal() else 0)
            try:
                message = await asyncio.wait_for(receive(), deadline - time.monotonic())
            except asyncio.TimeoutError:
                message = f"the body did not arrive within {self._seconds:g} s: send it faster, or less"
                raise RefusedError(408, "body_timeout", message) from None
            piece = len(message.get("body", b""))
            size, self._held = size + piece, self._held + piece
            self._check(size)
            complete = not message.get("more_body", False)
            return message

        try:
            await self._app(scope, receive_within_bounds, send)
        finally:
            self._held -= size

    def _check(self, size: int) -> None:
        """Raise RefusedError for a body that is too long, alone or together with all others."""
        if size > self._most:
            message = f"the body has more than {self._most} bytes: send fewer or shorter documents at a time"
            raise RefusedError(413, "body_too_large", message)
        if self._held > _BODIES * self._most:
            message = "the requests that are under way fill the memory for them: try again in a moment"
            raise RefusedError(429, "too_much_at_once", message, retry_after=1)


def _refuse(name: str) -> None:
    """Refuse NaN and Infinity, which Python reads but JSON does not have."""
    raise ValueError(f"{name} is not a JSON value")


def _finite(text: str) -> float:
    """Read a number, unless it is beyond what a float holds."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _depth(value: Any) -> int:
    """Return how deep a value is nested, or a little more than the most that is allowed."""
    depth, level = 0, [value]
    while level and depth <= _DEEPEST:
        depth += 1
        level = [
            item
            for outer in level
            if isinstance(outer, (list, dict))
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth
