"""JSON bodies: counted before they are read, and bounded in all that they can hold."""

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_rerank.server import strict_json

MANY = 3_900_000
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(alphabet='ab,"\\[]{}:\né')
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(alphabet='a,"\\{'), inner, max_size=6),
)


def size(value: Any) -> int:
    """Return how many values and names a value holds."""
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(size, value.values()))
    return 1 + sum(map(size, value)) if isinstance(value, list) else 1


def refusal(body: bytes, most_items: int) -> strict_json.Refusal:
    """Return why a body is refused."""
    value, why = strict_json.read(body, most_items, ())
    assert value is None
    assert why is not None
    return why


@settings(deadline=None)
@given(JSON, st.booleans())
def test_no_value_is_missed_and_none_counts_more_than_twice(value: Any, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert size(value) <= strict_json._values(body, most=10**9) <= 2 * size(value)
    assert size(value) <= 2 * strict_json.punctuation(body)


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
    assert refusal(b'{"query":"a","%s":%s}' % (field, unread), 1000)[:2] == (413, "too_many_values")
    assert time.process_time() - begin < 0.5  # making them takes seconds


def test_texts_full_of_punctuation_are_no_values() -> None:
    text = '[{"a": "b, c"}, "\\"]' * 50_000
    assert strict_json.read(json.dumps({"query": text}).encode(), 1000, {"query"}) == ({"query": text}, None)


def test_as_many_documents_as_are_allowed_are_no_values_too_many() -> None:
    documents = [{"id": str(i), "text": "bear"} for i in range(30_000)]
    body = json.dumps({"documents": documents}).encode()
    assert strict_json.read(body, 30_000, {"documents"}) == ({"documents": documents}, None)
    assert refusal(body, 29_999)[1:] == (
        "too_many_documents",
        "30000 documents are more than the 29999 that a request may have: send fewer",
        "documents",
    )


@pytest.mark.parametrize("number", ["9" * 401, "-" + "9" * 401, "0." + "1" * 400, "1" * 400 + "e5"])
def test_long_numbers(number: str) -> None:
    assert re.search("not JSON: .* is too (long|large) a number", refusal(f'{{"a": {number}}}'.encode(), 10)[2])


@given(st.dictionaries(st.sampled_from(["query", "documents", "unread"]), JSON))
def test_what_nobody_reads_is_left_out(body: dict[str, Any]) -> None:
    found = strict_json.read(json.dumps(body).encode(), 10, {"query", "documents"})
    assert found == (body | ({"unread": True} if body.get("unread") is not None else {}), None)
