"""Costly bodies, read in a process of its own: a parser never lets go of its interpreter's lock."""

import asyncio
import atexit
import marshal
import socket
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlx_rerank.errors import RefusedError
from mlx_rerank.server import schema, strict_json, wires
from mlx_rerank.server.strict_json import HEAD, LENGTH, Refusal

_SHORT = 64 * 2**10  # bytes, and
_FEW = 4000  # values: read in less time than it takes to hand them over
_PATIENCE = 60.0  # seconds for the other process to take or give something; it needs less than one


class Reader:
    """Reads bodies, the costly ones one at a time in another process, which the first of them starts.

    It ends when this process does, however that ends, because its standard input does. Where it fails, or cannot be
    started, a body is read here.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Start nothing yet. The names are those of the fields that are read, as of `strict_json.read`."""
        self._names = frozenset(names)
        self._thread = ThreadPoolExecutor(1, "mlx-rerank-json")
        self.process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    async def read(self, body: bytes, most_items: int) -> Any:
        """Return what a body says.

        Args:
            body: as it came.
            most_items: of each of its lists.

        Raises:
            RefusedError: it is not JSON, a list is too long, or it has too many values.
        """
        if len(body) <= _SHORT and strict_json.punctuation(body) <= _FEW:
            value, refusal = strict_json.read(body, most_items, self._names)
        else:
            ask = asyncio.get_running_loop().run_in_executor
            value, refusal = await ask(self._thread, self.ask, body, most_items)
        if refusal:
            status, code, message, field = refusal
            raise RefusedError(status, code, message, param=field)
        return value

    def ask(self, body: bytes, most_items: int) -> tuple[Any, Refusal | None]:
        """Let the other process read a body; as `strict_json.read`."""
        try:
            with_whom = self._socket or self._start()
            with_whom.sendall(HEAD.pack(len(body), most_items))
            with_whom.sendall(body)
            (size,) = LENGTH.unpack(_received(with_whom, LENGTH.size))
            return marshal.loads(_received(with_whom, size))
        except (OSError, EOFError):
            self.close()
            return strict_json.read(body, most_items, self._names)

    def close(self) -> None:
        """End the other process."""
        if self._socket:
            self._socket.close()
        if self.process:
            self.process.kill()
            self.process.wait()
        self._socket = self.process = None

    def _start(self) -> socket.socket:
        """Start the other process, and return what leads to it.

        Raises:
            OSError: there is no interpreter to start.
        """
        if getattr(sys, "frozen", False):
            raise OSError("this is a program of its own, which would start once more")
        ours, theirs = socket.socketpair()
        with theirs:
            ours.settimeout(_PATIENCE)
            self._socket = ours
            isolated = ("-I", "-S")  # nothing but the standard library
            command = [sys.executable, *isolated, strict_json.__file__, *self._names]
            self.process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL
            )
        return ours


def _received(source: socket.socket, size: int) -> bytearray:
    """Return so many bytes.

    Raises:
        EOFError: there are fewer.
    """
    found = bytearray(size)
    rest = memoryview(found)
    while rest:
        got = source.recv_into(rest)
        if not got:
            raise EOFError("the other process has ended")
        rest = rest[got:]
    return found


READER = Reader(schema.FIELDS | wires.FIELDS)  # of this process, as Python reads one body at a time anyway
atexit.register(READER.close)
