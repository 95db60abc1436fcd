"""The server's log: lines that nobody reads hold up nobody."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from servers import COMMAND, wait_until_ready

from mlx_rerank.server import logs
from mlx_rerank.server.logs import LineQueue


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    with ExitStack() as stack:
        ends = os.pipe()
        for end in ends:
            stack.callback(os.close, end)
        yield ends


def line(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, "levelname": "INFO"})


def test_lines_that_find_no_room_are_dropped_and_counted(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_LINES", 20)
    reading, writing = pipe
    handler, long = LineQueue(writing), "x" * 10_000
    for i in range(100):
        handler.handle(line(f"{i} {long}"))
    written = b""
    while b"after" not in written:  # there is room again when some have been read
        written += os.read(reading, 65536)
        handler.handle(line("after"))
    rows = written.decode().splitlines()
    kept = [int(row.split()[0]) for row in rows if row.endswith(long)]
    assert kept == list(range(len(kept)))
    assert 20 <= len(kept) < 30
    assert "lines were dropped, as nobody read them" in rows
    handler.close()


def test_a_reader_that_has_stalled_is_not_waited_for(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_LAST_LINES", 0.05)
    handler = LineQueue(pipe[1])
    handler.handle(line("x" * 100_000))  # more than a pipe holds
    begin = time.monotonic()
    handler.close()
    handler.close()
    assert time.monotonic() - begin < 2
    left = 100_001
    while left:
        left -= len(os.read(pipe[0], left))
    handler._thread.join()


def test_what_cannot_be_written_ends_nothing(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    broken = os.dup(reading)  # not for writing
    handler = LineQueue(broken)
    handler.handle(line("lost"))
    while not handler._lines.empty():
        time.sleep(0.001)
    time.sleep(0.01)
    os.dup2(writing, broken)
    handler.handle(line("a lone \udfff surrogate"))
    handler.close()
    handler.close()
    os.close(broken)
    assert os.read(reading, 1000) == b"a lone \\udfff surrogate\n"


def test_a_server_whose_log_nobody_reads(tiny: Path) -> None:
    command = [*COMMAND, "--port", "0", "--model", str(tiny)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        url = process.stderr.readline().split()[-1]
        wait_until_ready(url)
        with httpx.Client() as client:
            for _ in range(800):  # a pipe holds some 500 lines
                assert client.get(f"{url}/none").status_code == 404
            body = {"query": "panda", "documents": ["bear"]}
            assert client.post(f"{url}/rerank", json=body).status_code == 200
        begin = time.monotonic()
        process.terminate()
        assert process.wait(30) == 0
        assert time.monotonic() - begin < 5


def test_a_server_without_standard_error(tiny: Path, tmp_path: Path) -> None:
    place = tmp_path / "s"
    command = [sys.executable, "-m", "mlx_rerank", "serve", "--unix-socket", str(place), "--model", str(tiny)]
    with subprocess.Popen(["sh", "-c", 'exec "$@" 2>&-', "sh", *command]) as process:
        while not place.exists():
            assert process.poll() is None
            time.sleep(0.02)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(place)), base_url="http://localhost") as client:
            while client.get("/ready").status_code != 200:
                time.sleep(0.02)
            assert client.get("/none").status_code == 404
        process.terminate()
        assert process.wait(30) == 0
