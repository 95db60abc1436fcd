"""What a hostile or unlucky client sends, the status that it gets, and a server that goes on."""

import gzip
import json

import httpx
import pytest
from hostile import GOOD, SECRET, exchange, post
from servers import Server


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
        (b'{"query": "a", "documents": ' + b"[" * 90_000 + b"]" * 90_000 + b"}", 400, "nested"),
        (b'{"query": "a", "documents": [{"text": "b", "c": ' + b"[" * 70 + b"]" * 70 + b"}]}", 400, "nested more than"),
        (b"[" * 90_000, 400, "nested too deeply"),
        (b"[" * 500_000, 413, "more than 100000 JSON values"),
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
        (json.dumps({"query": "a", "documents": [0] * 90_000}).encode(), 422, "90000 documents are more than the 50"),
        (json.dumps({"query": "a", "documents": [0] * 300_000}).encode(), 413, "more than 100000 JSON values"),
        (json.dumps({**GOOD, "unread": {"a": [[]] * 200_000}}).encode(), 413, "more than 100000 JSON values"),
        (json.dumps({"query": "a", "documents": ["\ufdfa" * 600]}).encode(), 413, "10800 characters"),
        (json.dumps({"query": "a" * 600 + "\ufdfb" * 1200, "documents": ["b"]}).encode(), 413, "10200 characters"),
        (json.dumps({"query": "a", "documents": [{"t": "b"}], "rank_fields": ["t"] * 65}).encode(), 422, "rank_fields"),
        (json.dumps({"query": "a", "documents": ["b" * 10_001]}).encode(), 413, "10001 characters"),
        (json.dumps({"query": "a" * 10_001, "documents": ["b"]}).encode(), 413, "10001 characters"),
        (json.dumps({**GOOD, "model": "../../../etc/passwd"}).encode(), 404, "not served here"),
        (json.dumps({**GOOD, "model": "http://127.0.0.1:1/model.pkl"}).encode(), 404, "not served here"),
        (json.dumps({**GOOD, "truncate_prompt_tokens": 9999}).encode(), 422, "exceeds this model's limit"),
        (json.dumps({**GOOD, "truncate_prompt_tokens": 2}).encode(), 422, "leaves no room"),
        (json.dumps({**GOOD, "max_tokens_per_doc": -1}).encode(), 422, "max_tokens_per_doc"),
        (json.dumps({**GOOD, "truncation_direction": "Up"}).encode(), 422, "truncation_direction"),
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


def test_a_compressed_body_is_no_json(strict: Server) -> None:
    packed = gzip.compress(json.dumps(GOOD).encode())
    assert post(strict, packed, **{"content-encoding": "gzip"}).status_code == 415


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/rerank", 405), ("DELETE", "/v1/models", 405), ("GET", "/../../etc/passwd", 404),
    ("GET", "/page/../../pyproject.toml", 404), ("GET", "/page/%2e%2e/app.py", 404), ("POST", "/nope", 404),
    ("GET", "/docs", 404), ("OPTIONS", "*", 404),
])  # fmt: skip
def test_routes_that_are_not(strict: Server, method: str, path: str, status: int) -> None:
    line = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    assert exchange(strict, line.encode()).startswith(f"HTTP/1.1 {status} ".encode())


def test_control_characters_and_markup_come_back_as_they_are(strict: Server) -> None:
    documents = ["nul\x00 bell\x07 escape\x1b[31m", "<script>alert(1)</script>", "\u202ereversed", "{{7*7}} ${x} %s %n"]
    body = {"query": "'; DROP TABLE scores; --", "documents": documents, "return_documents": True}
    answer = post(strict, json.dumps(body).encode())
    assert answer.status_code == 200
    assert {row["index"]: row["document"]["text"] for row in answer.json()["results"]} == dict(enumerate(documents))


def test_repeated_fields_do_not_multiply_a_text(strict: Server) -> None:
    body = {"query": "a", "documents": [{"t": "b" * 9000}], "rank_fields": ["t"] * 40}
    assert post(strict, json.dumps(body).encode()).status_code == 200
