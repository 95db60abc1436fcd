"""Request bodies: JSON and nothing but JSON, read in time."""

import asyncio
import json
import math
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_rerank.errors import RefusedError
from mlx_rerank.server.dialects import dialect_of, without_nulls

_DEEPEST = 64  # levels of nesting; no client needs more than four
_VALUES = 100_000  # of a body, the names of fields among them; or more where more documents are allowed
_DIGITS = 400  # of a number; reading one takes a time that grows with their square
_BODIES = 16  # bodies of the largest size that may be held at once, or more smaller ones
_PART = 2**20  # bytes that are counted first, as they mostly tell
_SHORT = 64 * 2**10  # bytes that are read in less time than it takes to hand them to a thread
_GZIP = b"\x1f\x8b"  # how packed bytes begin, and no JSON
_reader = ThreadPoolExecutor(1, "mlx-rerank-json")  # one, as Python reads one at a time anyway


class JsonRequest(Request):
    """A request whose body is strict JSON: UTF-8, no NaN, no lone surrogates, not nested without end.

    How it is to be answered, which its fields decide, is left in `state.dialect`, and their names in `state.fields`.
    """

    async def json(self) -> Any:
        """Return what the body says.

        Raises:
            RefusedError: it is not JSON, or not called so, has too many values, or is not what its program sends.
        """
        body, most = await self.body(), self.app.state.most_items
        if body.startswith(_GZIP):
            raise _packed("gzip")
        if len(body) <= _SHORT:
            value = read_json(body, most)
        else:
            value = await asyncio.get_running_loop().run_in_executor(_reader, read_json, body, most)
        dialect = dialect_of(self.url.path, value if isinstance(value, dict) else {})
        if not _type_of(self) and not (dialect.wire and dialect.wire.untyped):
            raise _not_json("of no type")
        if not isinstance(value, dict):
            return value
        self.state.fields, self.state.dialect = sorted(without_nulls(value)), dialect
        return dialect.read(value)


def read_json(body: bytes, most_items: int) -> Any:
    """Return what a body says.

    Args:
        body: as it came.
        most_items: of each of its lists.

    Raises:
        RefusedError: it is not JSON, a list is too long, or it has too many values.
    """
    most = max(_VALUES, 10 * most_items)
    # Counted before they are made, as a byte can become an object of a hundred; most bodies are known to have few.
    if 2 * _punctuation(body) > most and _values(body, most) > most:
        message = f"the body holds more than {most} JSON values: leave out fields that are not read, or send less"
        raise RefusedError(413, "too_many_values", message)
    try:
        text = body.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_refuse, parse_int=_whole, parse_float=_finite)
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
    for name, items in value.items() if isinstance(value, dict) else ():
        if isinstance(items, list) and len(items) > most_items:
            message = f"{len(items)} {name[:40]} are more than the {most_items} that a request may have: send fewer"
            raise RefusedError(422, "too_many_documents", message, param=name[:40])
    return value


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


def _refuse(name: str) -> None:
    """Refuse NaN and Infinity, which Python reads but JSON does not have."""
    raise ValueError(f"{name} is not a JSON value")


def _values(body: bytes, most: int) -> int:
    """Return how many values a body has, or more than `most`; names of fields count too.

    Nothing is made of them, so that this takes hundredths of a second, whatever the body. What follows an error in it
    is counted as something else than it looks like, but never read.
    """
    count = 0
    for part in (body[:_PART], body):
        bare = part.replace(rb"\\", b"").replace(rb"\"", b"")  # then a quotation mark begins or ends a string
        count = bare.count(b'"') // 2
        count += _punctuation(b"".join(bare.split(b'"')[::2])) if count <= most else 0
        if count > most:
            break
    return count


def _punctuation(body: bytes) -> int:
    """Return how many values and names a body has at most, by what stands before them."""
    return 1 + sum(map(body.count, (b",", b"[", b"{")))


def _whole(text: str) -> int:
    """Read a whole number of a sensible length."""
    if len(text) > _DIGITS:
        raise ValueError(f"{text[:40]}... is too long a number")
    return int(text)


def _finite(text: str) -> float:
    """Read a number, unless it is beyond what a float holds."""
    number = float(text) if len(text) <= _DIGITS else math.inf
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
