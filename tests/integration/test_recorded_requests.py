"""Requests as the sources of public programs build them, sent unchanged: each gets the answer that its program reads.

tests/recorded has one file a program. `reads` are paths into the answer: `results[].index:int` is a number of a result,
`?` marks a key that may be missing but not null, `:=rerank` is a value. `absent` are paths that must not be there.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from records import PAGE, RECORDS, address_of, table
from servers import Server

TYPES = {"bool": bool, "int": int, "float": (int, float), "str": str, "object": dict, "any": object}
MISSING = object()
REQUESTS = [
    pytest.param(request, id=f"{record['client']}: {request['name']}")
    for record in RECORDS
    for request in record["requests"]
]


def values_at(answer: Any, steps: list[str]) -> list[Any]:
    """Return what is at a path, once for every item of the lists on the way, or MISSING."""
    if not steps:
        return [answer]
    step, *rest = steps
    if step == "[]":
        assert isinstance(answer, list), f"{answer!r} is no list"
        return [value for item in answer for value in values_at(item, rest)]
    key = step.rstrip("?")
    if not isinstance(answer, dict) or key not in answer:
        return [] if step.endswith("?") else [MISSING]
    return values_at(answer[key], rest)


def steps_of(path: str) -> list[str]:
    return re.findall(r"\[\]|[^.\[\]]+", path)


def check_read(answer: Any, read: str) -> None:
    path, kind = read.rsplit(":", 1)
    values = values_at(answer, steps_of(path))
    assert values or "?" in path, f"nothing at {path}"
    assert MISSING not in values, f"{path} is missing"
    for value in values:
        if kind.startswith("="):
            assert value == kind[1:], read
        elif kind == "positive":
            assert value > 0, read
        else:
            assert isinstance(value, TYPES[kind]), f"{read}, not {value!r}"
            assert kind not in ("int", "float") or not isinstance(value, bool), read


def documents_in(body: Mapping[str, Any]) -> Any:
    """Return what is to be ranked, however a program calls it."""
    names = ("texts", "documents", "candidates", "passages", "text_2")
    return documents_in(body["inputs"]) if "inputs" in body else next(body[name] for name in names if name in body)


def rows_of(answer: Any) -> list[dict[str, Any]]:
    """Return index and score of each result, whose index is its place if it has none."""
    names = ("results", "data", "rankings", "scores")
    rows = answer if isinstance(answer, list) else next(answer[name] for name in names if name in answer)
    rows = [row if isinstance(row, dict) else {"score": row} for row in rows]
    kind = next(name for name in ("score", "relevance_score", "logit") if name in rows[0])
    return [{"index": row.get("index", i), "score": row[kind], "raw": kind == "logit"} for i, row in enumerate(rows)]


def check_ranking(rows: list[dict[str, Any]], request: dict[str, Any]) -> None:
    """Check indices, scores, their order, and that the right document wins."""
    body = request["body"]
    documents = documents_in(body)
    count = 1 if isinstance(documents, str) else len(documents)
    indices = [row["index"] for row in rows]
    scores = [row["score"] for row in rows]
    assert len(rows) == min(body.get("top_n") or body.get("top_k") or count, count)
    assert len(set(indices)) == len(rows)
    assert set(indices) <= set(range(count))
    if rows[0]["raw"] or body.get("raw_scores") or body.get("use_activation") is False:
        assert all(map(math.isfinite, scores))
        assert not 0 <= min(scores) <= max(scores) <= 1
    else:
        assert all(0 <= score <= 1 for score in scores)
    if request.get("order") == "descending":
        assert scores == sorted(scores, reverse=True)
    if request.get("order") == "input":
        assert indices == list(range(count))
    if "best" in request:
        assert indices[scores.index(max(scores))] == request["best"]


@pytest.mark.parametrize("recorded", REQUESTS)
def test_a_client_gets_the_answer_that_it_reads(server: Server, recorded: dict[str, Any]):
    content = json.dumps(recorded["body"]) if "body" in recorded else None
    url = server.url + recorded["path"]
    response = httpx.request(recorded["method"], url, headers=recorded["headers"], content=content, timeout=60)
    expected = recorded.get("status", 200)
    assert response.status_code == expected, response.text
    answer = response.json() if response.content else None
    for read in recorded["reads"]:
        check_read(answer, read)
    for path in recorded.get("absent", []):
        assert set(values_at(answer, steps_of(path))) == {MISSING}, path
    if "body" in recorded and expected == 200:
        check_ranking(rows_of(answer), recorded)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["client"])
def test_each_file_says_where_its_facts_are_from(record: dict[str, Any]):
    assert re.match(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} ", record["source"])
    asked = {address_of(record, request) for request in record["requests"]}
    assert asked == set(record["settings"].values())


def test_the_table_of_programs_is_what_is_recorded():
    assert table() in PAGE.read_text(encoding="utf-8")
