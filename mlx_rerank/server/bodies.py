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
from mlx_rerank.server.reader import READER

_BODIES = 16  # bodies of the largest size that may be held at once, or more smaller ones


class JsonRequest(Request):
    """A request whose body is strict JSON: UTF-8, no NaN, no lone surrogates, not nested without end.

    The names of its fields are left in `state.fields`, because they decide the dialect.
    """

    async def json(self) -> Any:
        """Return what the body says.

        Raises:
            RefusedError: it is not JSON, or has too many values.
        """
        value = await READER.read(await self.body(), self.app.state.most_items)
        if isinstance(value, dict):
            self.state.fields = {name for name, given in value.items() if name != "texts" or given is not None}
        return value


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
