"""JSON bodies: counted before they are read, read beside the event loop, and bounded in all that they can hold."""

import json
import threading
import time
from typing import Any

import pytest
from bodies import BODY
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_rerank.errors import RefusedError
from mlx_rerank.server import bodies
from mlx_rerank.server.bodies import read_json
from server.conftest import Connect

MANY = 3_900_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab,"\\[]{}:\né') | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(alphabet='a,"\\{'), inner, max_size=6),
)


def size(value: Any) -> int:
    """Return how many values and names a value holds."""
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(size, value.values()))
    return 1 + sum(map(size, value)) if isinstance(value, list) else 1


@settings(deadline=None)
@given(JSON, st.booleans())
def test_no_value_is_missed_and_none_counts_more_than_twice(value: Any, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert size(value) <= bodies._values(body, most=10**9) <= 2 * size(value)
    assert size(value) <= 2 * bodies._punctuation(body)


@pytest.mark.parametrize(
    "unread",
    [
        b"[" + b"[]," * (MANY // 2) + b"[]]",
        b"[" + b"0," * MANY + b"0]",
        b"[" + b"{}," * (MANY // 2) + b"0]",
        b"[" + b'"",' * (MANY // 2) + b"0]",
        b"{" + b'"a":0,' * (MANY // 3) + b'"a":0}',
        b'{"a":["\\\\","\\"",' + b"[{}]," * (MANY // 3) + b"0]}",
        b'["' + b"\\\\" * 500_000 + b'",' + b"0," * 2_000_000 + b"0]",
    ],
    ids=["lists", "numbers", "objects", "empty texts", "names", "after quotes", "after a long text"],
)
@pytest.mark.parametrize("field", [b"unread", b"documents", b"rank_fields", b"query"])
def test_values_beyond_measure_are_refused_before_they_are_made(unread: bytes, field: bytes) -> None:
    begin = time.process_time()
    with pytest.raises(RefusedError, match="more than 100000 JSON values: leave out fields") as refused:
        read_json(b'{"query":"a","%s":%s}' % (field, unread), 1000)
    assert time.process_time() - begin < 0.5  # making them takes seconds
    assert refused.value.status == 413


def test_texts_full_of_punctuation_are_no_values() -> None:
    text = '[{"a": "b, c"}, "\\"]' * 50_000
    assert read_json(json.dumps({"query": text}).encode(), 1000) == {"query": text}


def test_as_many_documents_as_are_allowed_are_no_values_too_many() -> None:
    documents = [{"id": str(i), "text": "bear"} for i in range(30_000)]
    assert len(read_json(json.dumps({"documents": documents}).encode(), 30_000)["documents"]) == 30_000


@pytest.mark.parametrize("number", ["9" * 401, "-" + "9" * 401, "0." + "1" * 400, "1" * 400 + "e5"])
def test_long_numbers(number: str) -> None:
    with pytest.raises(RefusedError, match=r"400: the body is not JSON|too (long|large) a number"):
        read_json(f'{{"a": {number}}}'.encode(), 10)


@pytest.mark.anyio
async def test_long_bodies_are_read_beside_the_event_loop(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    read = bodies.read_json

    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return read(*arguments)

    monkeypatch.setattr(bodies, "read_json", noted)
    async with connect() as (client, _):
        for unread in ("", "bear" * 20_000):
            assert (await client.post("/rerank", json=BODY | {"unread": unread})).status_code == 200
    assert threads[0] == threading.current_thread().name
    assert threads[1].startswith("mlx-rerank-json")


@pytest.mark.anyio
async def test_fields_of_documents_that_nobody_reads_come_back_as_they_were(connect: Connect) -> None:
    document = {"text": "bear", "tags": [1, {"a": None}], "vector": [0.1] * 500}
    async with connect() as (client, _):
        body = BODY | {"documents": [document], "return_documents": True}
        (row,) = (await client.post("/rerank", json=body)).json()["results"]
    assert row["document"] == document
