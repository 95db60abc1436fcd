"""What a hostile or unlucky client sends, the status that it gets, and a server that goes on."""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPResponse
from urllib.parse import urlsplit

import httpx
import pytest
from servers import Server, serving

GOOD = {"query": "what do pandas eat?", "documents": ["Pandas eat bamboo.", "It rains."]}
HEAD = b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SECRET = "Geheimnis-7f3a"


@pytest.fixture(scope="module")
def strict() -> Iterator[Server]:
    """A server with low limits."""
    limits = ["--max-body", "1M", "--max-documents", "50", "--max-characters", "10000", "--body-timeout", "1"]
    with serving(*limits, "--unknown-model", "404") as server:
        yield server
        answer = httpx.post(f"{server.url}/rerank", json=GOOD)
        assert answer.status_code == 200  # after all that
        assert [row["index"] for row in answer.json()["results"]] == [0, 1]
        assert not [line for line in server.log if "Traceback" in line]
        assert not [line for line in server.log if SECRET in line]


def exchange(server: Server, data: bytes, patience: float = 5.0) -> bytes:
    """Send bytes, and return all that comes until the server closes or falls silent."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=patience) as connection:
        answer = b""
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                answer += piece
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            pass
        return answer


def post(server: Server, content: bytes, path: str = "/rerank", **headers: str) -> httpx.Response:
    return httpx.post(server.url + path, content=content, headers={"content-type": "application/json", **headers})


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 422, "the body: "),
        (b"{", 400, "not JSON"),
        (b"nonsense", 400, "not JSON"),
        (b'{"query": "a", "documents": ["\xff\xfe"]}', 400, "not UTF-8"),
        (json.dumps(GOOD).encode("utf-16"), 400, "not UTF-8"),
        (b'{"query": "a", "documents": ["b"], "top_n": NaN}', 400, "NaN is not a JSON value"),
        (b'{"query": "a", "documents": ["b"], "x": -Infinity}', 400, "not a JSON value"),
        (b'{"query": "a", "documents": [{"text": "b", "y": 1e999}]}', 400, "too large a number"),
        (b'{"query": "a", "documents": ["b"], "top_n": ' + b"9" * 5000 + b"}", 400, "not JSON"),
        (b'{"query": "\\ud800", "documents": ["b"]}', 400, "UTF-8"),
        (b'{"query": "a", "documents": ["b"], "model": "\\udfff"}', 400, "UTF-8"),
        (b'{"query": "a", "documents": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "nested"),
        (b'{"query": "a", "documents": [{"text": "b", "c": ' + b"[" * 70 + b"]" * 70 + b"}]}", 400, "nested more than"),
        (b"[" * 500_000, 400, "nested too deeply"),
        (b'["query"]', 422, "the body"),
        (b"null", 422, "the body"),
        (b'{"documents": ["b"]}', 422, "query"),
        (b'{"query": 1, "documents": ["b"]}', 422, "query"),
        (b'{"query": "a"}', 400, "`documents` is empty"),
        (b'{"query": "a", "documents": []}', 400, "`documents` is empty"),
        (b'{"query": "a", "documents": "b"}', 422, "documents"),
        (b'{"query": "a", "documents": ["b", 7]}', 422, "documents.1"),
        (b'{"query": "a", "documents": ["b", null]}', 422, "documents.1"),
        (b'{"query": "a", "documents": [{"image": "http://127.0.0.1/x.png"}]}', 422, "documents[0] has no text"),
        (json.dumps({"query": "a", "documents": ["b"] * 51}).encode(), 422, "51 documents are more than the 50"),
        (json.dumps({"query": "a", "documents": [0] * 300_000}).encode(), 422, "300000 documents are more than the 50"),
        (json.dumps({"query": "a", "documents": [{"t": "b"}], "rank_fields": ["t"] * 65}).encode(), 422, "rank_fields"),
        (json.dumps({"query": "a", "documents": ["b" * 10_001]}).encode(), 413, "10001 characters"),
        (json.dumps({"query": "a" * 10_001, "documents": ["b"]}).encode(), 413, "10001 characters"),
        (json.dumps({**GOOD, "model": "../../../etc/passwd"}).encode(), 404, "not served here"),
        (json.dumps({**GOOD, "model": "http://127.0.0.1:1/model.pkl"}).encode(), 404, "not served here"),
        (json.dumps({**GOOD, "truncate_prompt_tokens": 9999}).encode(), 422, "exceeds this model's limit"),
        (json.dumps({**GOOD, "truncate_prompt_tokens": 2}).encode(), 422, "leaves no room"),
        (json.dumps({**GOOD, "max_tokens_per_doc": 0}).encode(), 422, "max_tokens_per_doc"),
        (json.dumps({**GOOD, "truncation_direction": "Left"}).encode(), 422, "cut at the right"),
        (json.dumps({"query": "a", "documents": ["b " * 1500], "truncate": False}).encode(), 422, "truncation is off"),
        (b"x" * 1_100_000, 413, "more than 1000000 bytes"),
    ],
)  # fmt: skip
def test_bad_bodies(strict: Server, body: bytes, status: int, words: str) -> None:
    answer = post(strict, body)
    assert answer.status_code == status, answer.text
    error = answer.json()
    assert words in error["error"]["message"]
    assert error["message"] == error["detail"] == error["error"]["message"]


@pytest.mark.parametrize("path", ["/rerank", "/score", "/tei/rerank"])
def test_errors_quote_no_document_in_the_log(strict: Server, path: str) -> None:
    for body in ({"query": SECRET}, {"query": SECRET, "documents": [SECRET, 3]}, {"texts": [[SECRET]], "query": 1}):
        assert post(strict, json.dumps(body).encode(), path).status_code in (400, 422)
    assert not [line for line in strict.log if SECRET in line]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:8787"}, 403),
        ({"host": "localhost.evil.example"}, 403),
        ({"host": "127.0.0.1.nip.example"}, 403),
        ({"host": ""}, 403),
        ({"host": "[::1"}, 403),
        ({"host": "localhost:80", "origin": "http://localhost"}, 200),
        ({"host": "localhost", "origin": "https://localhost:443"}, 200),
        ({"host": "localhost", "origin": "http://localhost:443"}, 403),
        ({"host": "localhost:1"}, 200),
        ({"host": "LOCALHOST."}, 200),
        ({"host": "[::1]:8787"}, 200),
        ({"host": "host.docker.internal:8787"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": "http://["}, 403),
        ({"content-type": "text/plain"}, 415),  # what a page may send without asking first
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"content-type": "application/problem+json"}, 200),
    ],
)
def test_headers(strict: Server, headers: dict[str, str], status: int) -> None:
    answer = post(strict, json.dumps(GOOD).encode(), **headers)
    assert answer.status_code == status, answer.text


def test_the_servers_own_page_is_its_origin(strict: Server) -> None:
    assert post(strict, json.dumps(GOOD).encode(), origin=strict.url).status_code == 200


def test_a_body_that_is_not_called_json_at_all(strict: Server) -> None:
    answer = httpx.post(f"{strict.url}/rerank", content=json.dumps(GOOD))
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["message"]


def test_an_offer_of_another_protocol_is_ignored(strict: Server) -> None:
    """As Java's client makes it, with every request."""
    body = json.dumps(GOOD).encode()
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    address = urlsplit(strict.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as connection:
        for _ in range(3):
            connection.sendall(HEAD + offer + f"Content-Length: {len(body)}\r\n\r\n".encode())
            time.sleep(0.05)
            connection.sendall(body)
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


def test_a_compressed_body_is_no_json(strict: Server) -> None:
    packed = gzip.compress(json.dumps(GOOD).encode())
    assert post(strict, packed, **{"content-encoding": "gzip"}).status_code == 400


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/rerank", 405), ("DELETE", "/v1/models", 405), ("GET", "/../../etc/passwd", 404),
    ("GET", "/page/../../pyproject.toml", 404), ("GET", "/page/%2e%2e/app.py", 404), ("POST", "/nope", 404),
    ("GET", "/docs", 404), ("OPTIONS", "*", 404),
])  # fmt: skip
def test_routes_that_are_not(strict: Server, method: str, path: str, status: int) -> None:
    line = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    assert exchange(strict, line.encode()).startswith(f"HTTP/1.1 {status} ".encode())


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


def test_control_characters_and_markup_come_back_as_they_are(strict: Server) -> None:
    documents = ["nul\x00 bell\x07 escape\x1b[31m", "<script>alert(1)</script>", "\u202ereversed", "{{7*7}} ${x} %s %n"]
    body = {"query": "'; DROP TABLE scores; --", "documents": documents, "return_documents": True}
    answer = post(strict, json.dumps(body).encode())
    assert answer.status_code == 200
    assert {row["index"]: row["document"]["text"] for row in answer.json()["results"]} == dict(enumerate(documents))


def test_repeated_fields_do_not_multiply_a_text(strict: Server) -> None:
    body = {"query": "a", "documents": [{"t": "b" * 9000}], "rank_fields": ["t"] * 40}
    assert post(strict, json.dumps(body).encode()).status_code == 200


def test_a_client_that_does_not_read(strict: Server) -> None:
    body = {"query": "a", "documents": ["b" * 9999] * 50, "return_documents": True, "truncate_prompt_tokens": 16}
    data = json.dumps(body).encode()
    address = urlsplit(strict.url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((address.hostname or "", address.port or 0))
        for _ in range(12):  # answers that no buffer of the system holds
            connection.sendall(HEAD + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        time.sleep(2.5)
        read = 0
        with suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                read += len(piece)
    assert read < 12 * 500_000 / 2


def test_requests_that_are_given_up_hold_up_nobody() -> None:
    """Texts that take longer to tokenise than a request may are not tokenised to their end."""
    body = json.dumps({"query": "a", "documents": ["\ufdfa " * 60_000] * 15}).encode()
    with serving("--timeout", "1") as server, ThreadPoolExecutor(8) as clients:
        begin = time.monotonic()
        given_up = [clients.submit(post, server, body) for _ in range(8)]
        assert {future.result().status_code for future in given_up} == {504}
        while post(server, json.dumps(GOOD).encode()).status_code != 200:
            assert time.monotonic() - begin < 15
        assert server.stop() == 0


def test_more_connections_than_there_may_be() -> None:
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)); "
    with serving(python=["-c", limit + "runpy.run_module('mlx_rerank', run_name='__main__')"]) as server:
        address = urlsplit(server.url)
        with httpx.Client(base_url=server.url) as early, ExitStack() as stack:
            assert early.post("/rerank", json=GOOD).status_code == 200
            for _ in range(80):
                stack.enter_context(socket.create_connection((address.hostname or "", address.port or 0)))
            assert exchange(server, b"GET /health HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 503 ")
            assert early.post("/rerank", json=GOOD).status_code == 200
