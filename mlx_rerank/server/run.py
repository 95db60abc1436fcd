"""Starts the server, keeps house while it runs, and stops it without losing a request."""

import asyncio
import errno
import gc
import logging
import os
import resource
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from mlx_rerank.errors import OutputError, RefusedError, RerankError
from mlx_rerank.server.app import create_app
from mlx_rerank.server.failures import log_failure
from mlx_rerank.server.handler import Bounds, Handler
from mlx_rerank.server.pool import Pool
from mlx_rerank.server.protocol import bounded_by
from mlx_rerank.server.settings import Settings

_BACKLOG = 128  # connections; asyncio accepts as many at once
_OPEN_FILES = 4096  # wanted; launchd allows 256
_SPARE_FILES = 64 + 3 * _BACKLOG  # for models and logs, and for connections accepted before others are closed
_KEEP_ALIVE = 75  # seconds; longer than most clients keep idle connections, so that it is they who close them
_GOING = 0.1  # seconds in which requests notice that nobody waits for them any more
_LAST_ANSWERS = 10  # seconds in which clients have to read their answers, when the server stops
_HOUSEKEEPING = 1.0  # seconds between two looks at what may be unloaded
_LINGER = 0.5  # seconds in which clients with idle connections are told that the server stops

logger = logging.getLogger("mlx_rerank.server")


def run(pool: Pool, bounds: Bounds, settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGTERM, SIGHUP or SIGINT, then until all that was accepted is answered; a second SIGINT ends that.

    Args:
        pool: the models.
        bounds: what a request may ask for.
        settings: of the server.
        listener: a socket that listens.

    Raises:
        RerankError: the default model, or one to be warmed up, cannot be loaded.
        KeyboardInterrupt: it was SIGINT.
    """
    handler, files = Handler(pool, bounds), _allow_files()
    app = create_app(handler, settings)
    config = uvicorn.Config(
        app,
        http=bounded_by(settings.body_timeout, max(files // 4, files - _SPARE_FILES)),
        ws="none",
        lifespan="off",  # a failed start has to say why, which uvicorn keeps to its own log
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_LAST_ANSWERS,
    )
    gc.freeze()  # what is imported stays: the collector, which holds up all threads, need not look at it again
    server = _Server(config, handler, listener)
    server.run(sockets=[listener])
    if server.failure:
        raise server.failure
    if server.interrupted:
        raise KeyboardInterrupt


def open_socket(host: str, port: int, path: Path | None = None) -> socket.socket:
    """Return a socket to listen on.

    Args:
        host: name or address of this machine.
        port: of it; any free one if 0.
        path: of a Unix socket, which only this user may connect to, instead of host and port.

    Raises:
        OutputError: it is in use, or not of this machine.
    """
    try:
        return _tcp_socket(host, port) if path is None else _unix_socket(path)
    except OSError as error:
        place, choose = (f"{host} port {port}", "--port") if path is None else (str(path), "--unix-socket")
        used = error.errno == errno.EADDRINUSE
        reason = "another program is using it" if used else error.strerror or str(error)
        raise OutputError(f"cannot listen on {place}: {reason}; choose another {choose}") from error


def address(listener: socket.socket) -> str:
    """Return where a socket is reached, as a URL."""
    name: Any = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"


class _Server(uvicorn.Server):
    """Uvicorn's server, which loads the models while it listens, and refuses new requests before it stops."""

    def __init__(self, config: uvicorn.Config, handler: Handler, listener: socket.socket) -> None:
        """Take the configuration, the handler and the socket."""
        super().__init__(config)
        self._handler = handler
        self._address, self._file = address(listener), _file_of(listener)
        self.failure: RerankError | None = None
        self.interrupted = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Heed SIGHUP too, which the end of a terminal sends, unless it is ignored, as nohup has it."""
        with super().capture_signals():
            before = signal.getsignal(signal.SIGHUP)
            if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
                yield
                return
            signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(signal.SIGHUP, before)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal; unlike uvicorn, do not raise it again at the end: the server has done as it was told."""
        self.force_exit |= self.should_exit and sig == signal.SIGINT
        self.interrupted |= sig == signal.SIGINT
        self.should_exit = True

    async def main_loop(self) -> None:
        """Serve until told to stop."""
        logger.info("listening on %s", self._address)  # now that signals are heeded
        tasks = [asyncio.create_task(self._load()), asyncio.create_task(self._keep_house())]
        try:
            await super().main_loop()
        finally:
            for task in tasks:
                task.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nobody any more, answer the requests whose head is there, refuse those that still come; then close."""
        logger.info("stopping", extra={"under_way": self._handler.under_way})
        self._handler.draining = True
        await asyncio.sleep(0)  # so that waiting connections are accepted while somebody accepts them
        _remove(self._file)  # while its inode number is taken: a successor's file could have the same one afterwards
        for server in self.servers:
            server.close()
        linger = time.monotonic() + _LINGER
        while not self.force_exit and (self._handler.under_way or time.monotonic() < linger):
            await asyncio.sleep(0.02)
        if self.force_exit:
            for connection in list(self.server_state.connections):
                connection.transport.abort()  # so that its request ends as one whose client has gone
            await asyncio.sleep(_GOING)
        await super().shutdown(sockets)
        if not self.force_exit:
            await self._handler.close()
        logger.info("stopped")

    async def _load(self) -> None:
        """Load models, or stop where that is impossible."""
        try:
            await self._handler.pool.start()
            logger.info("ready")
        except Exception as error:  # whatever it is, a server without a model is none
            cause = error.__cause__ if isinstance(error, RefusedError) and error.__cause__ else error
            if not isinstance(cause, RerankError):
                log_failure(cause)
                cause = RefusedError(500, "internal_error", "the start failed, and the log says where")
            self.failure = cause
            self.should_exit = True

    async def _keep_house(self) -> None:
        """Unload what is idle."""
        while True:
            await asyncio.sleep(_HOUSEKEEPING)
            try:
                await self._handler.pool.unload_idle()
            except Exception as error:  # the next look may fare better
                log_failure(error)


def _tcp_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address of a host: 127.0.0.1 for localhost, which clients try in any case."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, place = min(found, key=lambda row: row[0] != socket.AF_INET)  # the first IPv4 one if any
    # asyncio turns Nagle's algorithm off only if the protocol is named; otherwise it costs 40 ms an answer.
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return _listening(listener, place)


def _unix_socket(path: Path) -> socket.socket:
    """Return a socket that listens at a path, to which nobody else may connect, from the moment that it is there."""
    _remove_stale(path)
    before = os.umask(0o177)
    try:
        return _listening(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), str(path))
    finally:
        os.umask(before)


def _listening(listener: socket.socket, place: Any) -> socket.socket:
    """Bind a socket, and listen at once: two may be bound to a place while neither listens."""
    try:
        listener.bind(place)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _file_of(listener: socket.socket) -> tuple[Path, int] | None:
    """Return the file of a Unix socket, and its inode number."""
    if listener.family != socket.AF_UNIX:
        return None
    path = Path(listener.getsockname())
    return path, path.stat().st_ino


def _remove(file: tuple[Path, int] | None) -> None:
    """Remove the file of a socket, unless another server has put its own in its place."""
    with suppress(FileNotFoundError):
        if file and file[0].stat().st_ino == file[1]:
            file[0].unlink()


def _remove_stale(path: Path) -> None:
    """Remove the socket of a server that is gone.

    Raises:
        OSError: something else is there, or a server that is still running.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "a file of that name exists")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            else:
                raise OSError(errno.EADDRINUSE, "in use")


def _allow_files() -> int:
    """Raise the limit of open files as far as is useful and allowed; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return min(soft, _OPEN_FILES) if soft != resource.RLIM_INFINITY else _OPEN_FILES
