"""Connections that are slow, endless, idle or too many, and a server that goes on."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hostile import GOOD, HEAD, exchange, post
from servers import Server, serving


def test_an_offer_of_another_protocol_is_ignored(strict: Server) -> None:
    """As Java's client makes it, with every request."""
    body = json.dumps(GOOD).encode()
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    address = urlsplit(strict.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as connection:
        head = HEAD + offer + f"Content-Length: {len(body)}\r\n\r\n".encode()
        for split in (len(head), head.index(b"grade:"), head.index(b"h2c") + 1):
            for part in (head[:split], head[split:], body):
                connection.sendall(part)
                time.sleep(0.05)
            answer = HTTPResponse(connection)
            answer.begin()
            assert answer.status == 200
            assert len(json.loads(answer.read())["results"]) == 2


def test_an_empty_line_after_an_answer_holds_no_connection(strict: Server) -> None:
    address = urlsplit(strict.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=5) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.3)
        connection.sendall(b"\r\n")
        begin = time.monotonic()
        while connection.recv(65536):
            pass
        assert time.monotonic() - begin < 3


@pytest.mark.parametrize("data", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\x00" * 100,
    HEAD + b"Content-Length: -5\r\n\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: 1\r\n" * 1_000_000 + b"\r\n",
])  # fmt: skip
def test_what_is_no_http(strict: Server, data: bytes) -> None:
    answer = exchange(strict, data, patience=3)
    assert not answer or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 408", b"HTTP/1.1 431")), answer[:100]


def test_100_mb_that_say_so(strict: Server) -> None:
    head = HEAD + b"Content-Length: 100000000\r\n\r\n"
    begin = time.monotonic()
    assert exchange(strict, head, patience=2).startswith(b"HTTP/1.1 413 ")  # before any of them were sent
    assert exchange(strict, head + b"x" * 100_000_000, patience=2)[:13] in (b"HTTP/1.1 413 ", b"")
    assert time.monotonic() - begin < 8


def test_100_mb_in_pieces(strict: Server) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1_000_000

    try:
        answer = httpx.post(f"{strict.url}/rerank", content=pieces(), headers={"content-type": "application/json"})
        assert answer.status_code == 413
    except (httpx.WriteError, httpx.RemoteProtocolError):  # refused before all of it was sent, and the answer not read
        pass


def test_a_client_that_goes_on_sending_what_was_refused(strict: Server) -> None:
    address = urlsplit(strict.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=5) as connection:
        begin = time.monotonic()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):  # noqa: PT012
            connection.sendall(HEAD + b"Content-Length: 999999999\r\n\r\n")
            while time.monotonic() - begin < 4:
                connection.sendall(b"x" * 1000)
                time.sleep(0.05)
        assert 0.9 < time.monotonic() - begin < 3


def test_many_who_are_slow(strict: Server) -> None:
    """Heads and bodies that never end: all are told, and others are served meanwhile."""
    body = HEAD + b'Content-Length: 500\r\n\r\n{"query": '
    with ThreadPoolExecutor(60) as slow:
        begin = time.monotonic()
        waiting = [slow.submit(exchange, strict, data) for data in (b"", b"P", HEAD, body, body) for _ in range(12)]
        while time.monotonic() - begin < 0.8:
            assert post(strict, json.dumps(GOOD).encode()).status_code == 200
        answers = [future.result() for future in waiting]
        assert 0.9 < time.monotonic() - begin < 4
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
    assert sum(b"the body did not arrive within 1 s" in answer for answer in answers) == 24


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_head_that_trickles(strict: Server, before: bytes) -> None:
    address = urlsplit(strict.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=5) as connection:
        connection.sendall(before)
        time.sleep(0.3)
        begin = time.monotonic()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):  # noqa: PT012
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
            while time.monotonic() - begin < 4:
                connection.sendall(b"X-More: 1\r\n")
                time.sleep(0.1)
        assert time.monotonic() - begin < 3


def test_a_client_that_does_not_read(strict: Server) -> None:
    body = {"query": "a", "documents": ["b" * 9999] * 50, "return_documents": True, "truncate_prompt_tokens": 16}
    data = json.dumps(body).encode()
    address = urlsplit(strict.url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((address.hostname or "", address.port or 0))
        for _ in range(12):  # answers that no buffer of the system holds
            connection.sendall(HEAD + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        logged = -1
        while logged < len(strict.log):  # until no request has ended for longer than the server is patient
            logged = len(strict.log)
            time.sleep(2)
        read = 0
        with suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                read += len(piece)
    assert read < 12 * 500_000 / 2


def test_requests_that_are_given_up_hold_up_nobody() -> None:
    """Texts that take longer to tokenise than a request may are not tokenised to their end."""
    body = json.dumps({"query": "a", "documents": ["a b " * 3900 + str(i) for i in range(500)]}).encode()
    with serving("--timeout", "1") as server, ThreadPoolExecutor(8) as clients:
        begin = time.monotonic()
        given_up = [clients.submit(post, server, body) for _ in range(8)]
        assert {future.result().status_code for future in given_up} == {504}
        while post(server, json.dumps(GOOD).encode()).status_code != 200:
            assert time.monotonic() - begin < 15
        assert server.stop() == 0


FEW_FILES = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)); "
UNFINISHED = HEAD + b"Content-Length: 500\r\n\r\n{"


@pytest.fixture(scope="module")
def small(tiny: Path) -> Iterator[Server]:
    """A server that has room for some 32 connections, and a key."""
    python = ["-c", FEW_FILES + "runpy.run_module('mlx_rerank', run_name='__main__')"]
    environment = {"MLX_RERANK_API_KEY": "sesame"}
    with serving("--model", str(tiny), python=python, environment=environment) as server:
        yield server


@pytest.mark.parametrize("sent", [b"", b"POST /rer", UNFINISHED, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_more_connections_than_there_may_be(small: Server, sent: bytes) -> None:
    address = urlsplit(small.url)
    key = {"authorization": "Bearer sesame"}
    with httpx.Client(base_url=small.url, headers=key, timeout=10) as early, ExitStack() as stack:
        assert early.post("/rerank", json=GOOD).status_code == 200
        begin = time.monotonic()
        for _ in range(200):
            connection = stack.enter_context(socket.create_connection((address.hostname or "", address.port or 0)))
            with suppress(OSError):
                connection.sendall(sent)
        for _ in range(3):
            assert httpx.post(f"{small.url}/rerank", json=GOOD, headers=key, timeout=10).status_code == 200
        assert early.post("/rerank", json=GOOD).status_code == 200
        assert time.monotonic() - begin < 5


def test_bodies_that_arrive_slowly_make_room_where_nobody_needs_a_key(tiny: Path) -> None:
    python = ["-c", FEW_FILES + "runpy.run_module('mlx_rerank', run_name='__main__')"]
    with serving("--model", str(tiny), python=python) as server, ExitStack() as stack:
        address = urlsplit(server.url)
        for _ in range(200):
            connection = stack.enter_context(socket.create_connection((address.hostname or "", address.port or 0)))
            with suppress(OSError):
                connection.sendall(UNFINISHED)
        assert httpx.post(f"{server.url}/rerank", json=GOOD, timeout=10).status_code == 200


def test_crumbs_of_a_body(strict: Server) -> None:
    body = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 900_000
    begin = time.monotonic()
    assert exchange(strict, body, patience=3)[:13] in (b"HTTP/1.1 400 ", b"")
    assert time.monotonic() - begin < 2
    documents = [{"text": "bear"}] * 40
    pieces = (piece.encode() for piece in json.dumps({"query": "a", "documents": documents}))  # a letter each, but few
    answer = httpx.post(f"{strict.url}/rerank", content=pieces, headers={"content-type": "application/json"})
    assert answer.status_code == 200
