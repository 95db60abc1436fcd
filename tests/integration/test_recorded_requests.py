"""Requests as the sources of public clients build them, sent unchanged: each gets the answer that its client reads.

tests/recorded has one file a client. `reads` are paths into the answer: `results[].index:int` is a number of a result,
`?` marks a key that may be missing but not null, `:=rerank` is a value. `absent` are paths that must not be there.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import Server

FILES = sorted((Path(__file__).parents[1] / "recorded").glob("*.json"))
TYPES = {"bool": bool, "int": int, "float": (int, float), "str": str, "object": dict, "any": object}
MISSING = object()
REQUESTS = [
    pytest.param(request, id=f"{file.stem}: {request['name']}")
    for file in FILES
    for request in json.loads(file.read_text(encoding="utf-8"))["requests"]
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


def check_ranking(rows: list[dict[str, Any]], request: dict[str, Any]) -> None:
    """Check indices, scores, their order, and that the right document wins."""
    body = request["body"]
    documents = body.get("texts") or body.get("documents") or body["text_2"]
    count = 1 if isinstance(documents, str) else len(documents)
    indices = [row["index"] for row in rows]
    scores = [row["score"] if "score" in row else row["relevance_score"] for row in rows]
    assert len(rows) == min(body.get("top_n") or body.get("top_k") or count, count)
    assert len(set(indices)) == len(rows)
    assert set(indices) <= set(range(count))
    if body.get("raw_scores") or body.get("use_activation") is False:
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
    answer = response.json()
    for read in recorded["reads"]:
        check_read(answer, read)
    for path in recorded.get("absent", []):
        assert set(values_at(answer, steps_of(path))) == {MISSING}, path
    if "body" in recorded and expected == 200:
        rows = answer if isinstance(answer, list) else answer.get("results", answer.get("data"))
        check_ranking(rows, recorded)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_file_says_where_its_facts_are_from(file: Path):
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["client"] == file.stem
    assert re.match(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} ", content["source"])
