"""Request bodies: JSON and nothing but JSON, read in time."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_rerank.errors import RefusedError
from mlx_rerank.server.dialects import dialect_of, without_nulls
from mlx_rerank.server.reader import READER

_BODIES = 16  # bodies of the largest size that may be held at once, or more smaller ones
_GZIP = b"\x1f\x8b"  # how packed bytes begin, and no JSON


class JsonRequest(Request):
    """A request whose body is strict JSON: UTF-8, no NaN, no lone surrogates, not nested without end.

    How it is to be answered, which its fields decide, is left in `state.dialect`, and their names in `state.fields`.
    """

    async def json(self) -> Any:
        """Return what the body says.

        Raises:
            RefusedError: it is not JSON, or not called so, has too many values, or is not what its program sends.
        """
        body = await self.body()
        if body.startswith(_GZIP):
            raise _packed("gzip")
        value = await READER.read(body, self.app.state.most_items)
        dialect = dialect_of(self.url.path, value if isinstance(value, dict) else {})
        if not _type_of(self) and not (dialect.wire and dialect.wire.untyped):
            raise _not_json("of no type")
        if not isinstance(value, dict):
            return value
        self.state.fields, self.state.dialect = sorted(without_nulls(value)), dialect
        return dialect.read(value)


class JsonRoute(APIRoute):
    """A route whose requests are read as `JsonRequest`, and whose content type must be JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request."""
        answer = super().get_route_handler()

        async def read(request: Request) -> Response:
            kind = _type_of(request)  # whether it may have none is seen in the body
            if request.method == "POST" and kind and kind != "application/json" and not kind.endswith("+json"):
                raise _not_json(kind[:80])
            packed = request.headers.get("content-encoding", "").strip().lower()
            if packed not in ("", "identity"):
                raise _packed(packed)
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


def _type_of(request: Request) -> str:
    """Return what a request calls its body, or an empty text."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _not_json(kind: str) -> RefusedError:
    """Return the error for a body that is not called JSON."""
    message = f"the body is {kind}: send JSON with the header Content-Type: application/json"
    return RefusedError(415, "unsupported_media_type", message)


def _packed(how: str) -> RefusedError:
    """Return the error for a compressed body, which may be a thousand times as long when it is unpacked."""
    message = f"the body is packed with {how[:40]}: send it as it is, without Content-Encoding"
    return RefusedError(415, "unsupported_media_type", message)
