"""A server as a user starts it: a process of its own, on a free port."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

MODULE = ["-m", "mlx_rerank"]
COMMAND = [sys.executable, *MODULE, "serve"]


@dataclass
class Server:
    """A running server.

    Args:
        process: it.
        url: its address, without a slash at the end.
        log: what it has written to standard error so far.
    """

    process: subprocess.Popen[str]
    url: str = ""
    log: list[str] = field(default_factory=list)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def serving(
    *options: str,
    ready: bool = True,
    port: bool = True,
    environment: dict[str, str] | None = None,
    python: Sequence[str] = MODULE,
) -> Iterator[Server]:
    """Start a server, wait until it listens and, if `ready`, until its model is loaded; kill it in the end."""
    process = subprocess.Popen(
        [sys.executable, *python, "serve", *(["--port", "0"] if port else []), *options],
        stderr=subprocess.PIPE, text=True, encoding="utf-8", env={**os.environ, **(environment or {})},
    )  # fmt: skip
    server, listening = Server(process), threading.Event()

    def read() -> None:
        assert process.stderr
        for line in process.stderr:
            server.log.append(line)
            found = re.search(r"listening on (\S+)", line)
            if found:
                server.url = found[1].rstrip('/",}')
                listening.set()
        listening.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert listening.wait(60)
        assert server.url, "".join(server.log)
        if ready and port:
            wait_until_ready(server.url)
        yield server
    finally:
        process.kill()
        process.wait()
        reader.join()
        if process.stderr:
            process.stderr.close()


def wait_until_ready(url: str) -> None:
    """Wait until the server's first model is loaded."""
    transport = httpx.HTTPTransport(retries=3)
    with httpx.Client(transport=transport, timeout=60) as client:
        while client.get(f"{url}/ready").status_code != 200:
            threading.Event().wait(0.02)
