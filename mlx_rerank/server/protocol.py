"""Uvicorn's HTTP protocol, with an end to its patience."""

from asyncio import TimerHandle, Transport

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_NO_TIME = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class TimelyProtocol(HttpToolsProtocol):
    """Closes connections on which nothing begins, a head does not end, or a body comes that nobody reads any more."""

    patience = 30.0  # seconds
    _timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Wait for a first request."""
        super().connection_made(transport)
        self._wait()

    def on_message_begin(self) -> None:
        """Wait for the rest of a head."""
        self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Leave the body to whoever reads it."""
        self._stop_waiting()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the end of a body that is still being sent, though its request was refused."""
        if self.cycle.more_body:
            self._wait()
        super().on_response_complete()

    def on_message_complete(self) -> None:
        """Be content."""
        self._stop_waiting()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(self.patience, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _give_up(self) -> None:
        """Close, unless an earlier request of the connection is not answered yet."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait()
        elif not self.transport.is_closing():
            self.transport.write(_NO_TIME)
            self.transport.close()


def patient_for(seconds: float) -> type[TimelyProtocol]:
    """Return the protocol with so much patience, as a class: uvicorn makes an object of it for each connection."""
    return type("TimelyProtocol", (TimelyProtocol,), {"patience": seconds})
