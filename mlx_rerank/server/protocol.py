"""Uvicorn's HTTP protocol, with limits on its patience and its memory."""

import re
from asyncio import TimerHandle, Transport

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST_OF_A_HEAD = 64 * 2**10  # bytes
_SMALL_PIECES, _SMALL_PIECE = 2000, 64  # so many pieces of a body may be of less than so many bytes on average
_UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)
# The end of a head's first part: of a line, of the head, or somewhere in such an offer.
_BROKEN_OFF = re.compile(rb"\r(\n(\r|u(p(g(r(a(d(e(:[^\r\n]*\r?)?)?)?)?)?)?)?)?)?\Z", re.IGNORECASE)


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections on which something does not end: a head, a body that nobody reads any more, or the reading.

    When there are too many, a new one takes the place of the one that has been idle for longest, or else of the one
    whose body has been arriving for longest: whoever holds many open, and has no key, keeps nobody else out.

    A refusal here follows no dialect, because there is no request yet.
    """

    patience = 30.0  # seconds
    most_connections = 1000
    idle: "dict[BoundedProtocol, None]"  # between requests, the longest first; shared by all connections
    arriving: "dict[BoundedProtocol, None]"  # whose body is on its way, likewise
    _timer: TimerHandle | None = None  # for the client to send
    _reading: TimerHandle | None = None  # for the client to read
    _in_head = True
    _head = 0  # bytes
    _held = b""  # the end of what came of a head, while it may be an offer of another protocol
    _pieces = _body = 0  # of a body, and its bytes

    def connection_made(self, transport: Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Wait for a first request, if need be in another's place."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            other = next(iter(self.idle or self.arriving), None)
            if other is None:  # all are being answered
                self._refuse("503 Service Unavailable", "retry-after: 1\r\n")
                return
            other.leave()
        self.idle[self] = None
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read on, unless a head has become too long."""
        if self._in_head:
            begun = self._head or data.strip(b"\r\n")  # else it is an empty line, which the parser has to see
            self._head += len(data)
            data = self._without_offer(data) if begun else data
        if data:
            super().data_received(data)
        busy = self.cycle is not None and not self.cycle.response_complete
        if self._in_head and self._head > _MOST_OF_A_HEAD:
            self._refuse("431 Request Header Fields Too Large")
        elif not busy and self._timer is None and self.timeout_keep_alive_task is None:
            self._wait()  # an empty line after an answer, with which no request begins, has ended uvicorn's timer

    def _without_offer(self, data: bytes) -> bytes:
        """Leave out an offer of another protocol, as Java's client makes it: the parser would drop the body.

        It may be ignored. The end of what has come is kept back while it may be a part of one.
        """
        head, end, rest = (self._held + data).partition(b"\r\n\r\n")
        last = _BROKEN_OFF.search(head) if not end else None
        head, self._held = (head[: last.start()], head[last.start() :]) if last else (head, b"")
        return _UPGRADE.sub(b"", head) + end + rest

    def on_message_begin(self) -> None:
        """Wait for the rest of a head."""
        self._in_head = True
        self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Leave the body to whoever reads it."""
        self._in_head, self._head = False, 0
        self._pieces = self._body = 0
        self._stop_waiting()
        self.idle.pop(self, None)
        self.arriving[self] = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass a piece of a body on, unless it comes in crumbs, each of which costs as much as a piece."""
        self._pieces, self._body = self._pieces + 1, self._body + len(body)
        if self._pieces > _SMALL_PIECES and self._body < self._pieces * _SMALL_PIECE:
            self._refuse("400 Bad Request")
            self.transport.abort()
        else:
            super().on_body(body)

    def on_response_complete(self) -> None:
        """Wait for the end of a body that is still being sent, though its request was refused."""
        if self.cycle.more_body:
            self._wait()
        self.arriving.pop(self, None)
        if not self.transport.is_closing() and not self.pipeline:
            self.idle[self] = None
        super().on_response_complete()

    def on_message_complete(self) -> None:
        """Stop waiting: the next head may come."""
        self._in_head = True
        self._stop_waiting()
        self.arriving.pop(self, None)
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Wait for a client that reads more slowly than it is written to."""
        self._reading = self._reading or self.loop.call_later(self.patience, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """Stop waiting: the client has read enough."""
        self._stop_reading()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_waiting()
        self._stop_reading()
        self._forget()
        super().connection_lost(exc)

    def leave(self) -> None:
        """Close in favour of another connection."""
        self._forget()
        self.transport.abort()  # what is left to write may never be read

    def _forget(self) -> None:
        self.idle.pop(self, None)
        self.arriving.pop(self, None)

    def _wait(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(self.patience, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading.cancel()
            self._reading = None

    def _give_up(self) -> None:
        """Close, unless an earlier request of the connection is not answered yet."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait()
        elif self.cycle is not None and self.cycle.more_body:  # it has its answer
            self.transport.close()
        else:
            self._refuse("408 Request Timeout")

    def _refuse(self, status: str, headers: str = "") -> None:
        """Say why, and close."""
        if not self.transport.is_closing():
            head = f"HTTP/1.1 {status}\r\n{headers}connection: close\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(head.encode())
            self.transport.close()


def bounded_by(patience: float, most_connections: int) -> type[BoundedProtocol]:
    """Return the protocol with its bounds, as a class: uvicorn makes an object of it for each connection."""
    bounds = {"patience": patience, "most_connections": most_connections, "idle": {}, "arriving": {}}
    return type("BoundedProtocol", (BoundedProtocol,), bounds)
