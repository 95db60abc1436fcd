"""Shapes: what the fields of a request change in the answer, in this process."""

import re
from pathlib import Path
from typing import Any

import pytest
from bodies import BODY, DOCUMENTS, TEXTS

from mlx_rerank import Reranker
from server.conftest import Connect

pytestmark = pytest.mark.anyio
PARTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
WANTED = {"return_documents": True}


@pytest.mark.parametrize(
    ("path", "body", "document"),
    [
        ("/rerank", {}, None),
        ("/rerank", {"return_documents": None}, None),
        ("/rerank", WANTED, {"text": "the bear"}),
        ("/rerank", {"return_documents": "true"}, {"text": "the bear"}),
        ("/rerank", {"return_documents": "false"}, None),
        ("/rerank", {"documents": [{"text": "the bear", "id": 7}]} | WANTED, {"text": "the bear", "id": 7}),
        ("/rerank", {"documents": [{"content": "the bear"}]} | WANTED, {"text": "the bear", "content": "the bear"}),
        ("/rerank", {"documents": [{"text": None, "content": "a"}]} | WANTED, {"text": "a", "content": "a"}),
        ("/rerank", {"documents": [{"content": PARTS}]} | WANTED, {"text": "a b", "content": PARTS}),
        ("/infinity/rerank", WANTED, "the bear"),
        ("/api/rerank", WANTED, "the bear"),
        ("/api/rerank", {"documents": [{"text": "the bear"}], "return_documents": True}, "the bear"),
        ("/vllm/rerank", {}, {"text": "the bear"}),
        ("/jina/v1/rerank", {}, {"text": "the bear"}),
        ("/jina/v1/rerank", {"return_documents": False}, None),
        ("/rerank", {"top_k": 1, "return_documents": True}, "the bear"),
        ("/rerank", {"truncation": True, "return_documents": True}, "the bear"),
        ("/voyage/v1/rerank", WANTED, "the bear"),
    ],
)  # fmt: skip
async def test_documents_are_left_out_or_come_as_the_client_reads_them(
    connect: Connect, path: str, body: dict[str, Any], document: object
) -> None:
    async with connect() as (client, _):
        answer = (await client.post(path, json={"query": "panda", "documents": ["the bear"]} | body)).json()
    (row,) = answer.get("results") or answer["data"]
    assert row.get("document") == document
    assert ("document" in row) == (document is not None)


async def test_tei(connect: Connect) -> None:
    async with connect() as (client, _):
        for path in ("/rerank", "/", "/v1/rerank", "/tei/rerank", "/tei"):
            answer = await client.post(path, json=TEXTS | {"return_text": True, "truncate": None, "top_n": 2})
            rows = answer.json()
            assert len(rows) == 2
            ours = set() if path.startswith("/tei") else {"truncated_tokens", "span"}
            assert set(rows[0]) == {"index", "score", "text"} | ours
            assert rows[0]["text"] == DOCUMENTS[rows[0]["index"]]
        refused = await client.post("/rerank", json=TEXTS | {"texts": []})
        assert (refused.status_code, refused.json()["error_type"]) == (400, "Empty")
        refused = await client.post("/rerank", json=TEXTS | {"texts": [1]})
        assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")
        assert set(refused.json()) == {"error", "error_type"}
        refused = await client.post("/tei/rerank", content=b"{", headers={"content-type": "application/json"})
        assert (refused.status_code, refused.json()["error_type"]) == (400, "Validation")  # it is not empty
        info = (await client.get("/tei/info")).json()
        assert info["model_type"]["reranker"]
        assert info["max_input_length"] == 64
        assert "models" not in info
        assert "models" in (await client.get("/info")).json()


@pytest.mark.parametrize(
    ("limit", "count"), [({}, 6), *(({"top_n": n}, 6) for n in (None, 0, -1, 6, 999, 10**30)), ({"top_n": 2}, 2),
                         ({"top_n": "2"}, 2), ({"top_k": 3}, 3), ({"top_k": None}, 6), ({"top_n": 1, "top_k": 4}, 1)]
)  # fmt: skip
async def test_how_many(connect: Connect, limit: dict[str, Any], count: int) -> None:
    async with connect() as (client, _):
        answer = (await client.post("/rerank", json=BODY | limit)).json()
    assert len(answer.get("results") or answer["data"]) == count


@pytest.mark.numeric
@pytest.mark.parametrize("raw", [{"raw_scores": True}, {"use_activation": False}])
async def test_raw_scores_are_logits(connect: Connect, tiny_reranker: Reranker, raw: dict[str, bool]) -> None:
    async with connect() as (client, _):
        answer = (await client.post("/rerank", json=BODY | raw)).json()
    expected = tiny_reranker.rank("panda", DOCUMENTS, raw_scores=True)
    assert [row["relevance_score"] for row in answer["results"]] == pytest.approx([r.score for r in expected], abs=1e-5)


async def test_equal_scores_stay_in_order(connect: Connect) -> None:
    async with connect() as (client, _):
        answer = (await client.post("/rerank", json={"query": "panda", "documents": ["the bear"] * 5})).json()
    assert [row["index"] for row in answer["results"]] == [0, 1, 2, 3, 4]


async def test_fields_of_documents(connect: Connect, tiny_reranker: Reranker) -> None:
    documents = [{"title": "the", "body": "bear", "year": 7}, {"title": "panda", "text": "unread"}]
    async with connect() as (client, _):
        answer = (
            await client.post(
                "/v1/rerank", json=BODY | {"documents": documents, "rank_fields": ["title", "body", "year"]}
            )
        ).json()
        refused = await client.post("/v1/rerank", json=BODY | {"documents": documents, "rank_fields": ["nope"]})
    found = {row["index"]: row["relevance_score"] for row in answer["results"]}
    expected = tiny_reranker.score([("panda", "the\nbear\n7"), ("panda", "panda")])
    assert [found[0], found[1]] == pytest.approx(expected.tolist(), abs=1e-5)
    assert refused.status_code == 422
    assert "documents[0] has no text under nope" in refused.json()["message"]


async def test_what_was_cut_is_told(connect: Connect, tiny_reranker: Reranker) -> None:
    documents = ["bear " * 100, "bear"]
    async with connect() as (client, _):
        answer = await client.post("/rerank", json=BODY | {"documents": documents})
        refused = [await client.post("/rerank", json=BODY | {"documents": documents, name: False})
                   for name in ("truncate", "truncation")]  # fmt: skip
        shorter = await client.post("/rerank", json=BODY | {"documents": documents, "truncate_prompt_tokens": 20})
        capped = await client.post("/v2/rerank", json=BODY | {"documents": documents, "max_tokens_per_doc": 3})
    expected = {result.index: result for result in tiny_reranker.rank("panda", documents)}
    rows = {row["index"]: row for row in answer.json()["results"]}
    assert rows[0]["truncated_tokens"] == expected[0].truncated_tokens > 0
    assert rows[0]["tokens"] == 64
    assert rows[0]["share_read"] == pytest.approx((64 - 5) / (64 - 5 + rows[0]["truncated_tokens"]), abs=0.01)
    assert (rows[1]["truncated_tokens"], rows[1]["share_read"]) == (0, 1.0)
    assert rows[0]["span"] == list(expected[0].span)
    assert 0 < rows[0]["span"][1] < len(documents[0])
    assert rows[1]["span"] == [0, len(documents[1])]
    assert answer.headers["x-truncated-documents"] == "1"
    assert answer.json()["usage"]["total_tokens"] == sum(row["tokens"] for row in rows.values())
    assert [r.status_code for r in refused] == [422, 422]
    assert {row["tokens"] for row in shorter.json()["results"] if row["index"] == 0} == {20}
    assert {row["tokens"] for row in capped.json()["results"] if row["index"] == 0} == {3 + 5}


async def test_headers(connect: Connect) -> None:
    async with connect() as (client, _):
        answer = await client.post("/rerank", json=BODY)
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    for name in ("x-queue-time", "x-inference-time", "x-total-time", "x-compute-tokens"):
        assert answer.headers[name].isdecimal()
    lengths = {row["tokens"] for row in answer.json()["results"]}
    assert int(answer.headers["x-compute-tokens"]) < answer.json()["usage"]["total_tokens"]  # "the bear" is there twice
    assert max(lengths) <= 64


async def test_long_texts_are_encoded_a_slice_at_a_time(connect: Connect, tiny_reranker: Reranker) -> None:
    documents = [f"bear {i % 40} " * (400 if i % 50 == 0 else 1) for i in range(700)]
    async with connect() as (client, _):
        answer = await client.post("/rerank", json={"query": "panda", "documents": documents, "raw_scores": True})
    found = {row["index"]: row["relevance_score"] for row in answer.json()["results"]}
    expected = tiny_reranker.score([("panda", document) for document in documents], raw_scores=True)
    assert [found[i] for i in range(700)] == pytest.approx(expected.tolist(), abs=1e-5)
    assert int(answer.headers["x-compute-tokens"]) < answer.json()["usage"]["total_tokens"] / 5  # equal ones once


async def test_long_documents_in_windows(connect: Connect, tiny: Path) -> None:
    reranker = Reranker(tiny, long_documents="windows")
    documents = ["bear " * 50 + "\n\n" + "the panda is what? " * 9 + "\n\n" + "bear " * 60, "bear"]
    expected = {result.index: result for result in reranker.rank("panda", documents)}
    async with connect() as (client, _):
        body = BODY | {"documents": documents, "long_documents": "windows", "truncate": False}
        answer = await client.post("/rerank", json=body)
        refused = await client.post("/rerank", json=BODY | {"documents": documents, "long_documents": "error"})
        wrong = await client.post("/rerank", json=BODY | {"documents": documents, "long_documents": "split"})
    rows = {row["index"]: row for row in answer.json()["results"]}
    for index, row in rows.items():
        assert row["relevance_score"] == pytest.approx(expected[index].score, abs=1e-5)
        assert row["span"] == list(expected[index].span)
        assert (row["truncated_tokens"], row["share_read"]) == (0, 1.0)
    assert rows[0]["span"][1] - rows[0]["span"][0] < 400
    assert rows[0]["tokens"] > 150  # of all windows
    assert answer.json()["usage"]["total_tokens"] == rows[0]["tokens"] + rows[1]["tokens"]
    assert (refused.status_code, wrong.status_code) == (422, 422)
    assert "more than max_length 64 allows" in refused.json()["message"]


@pytest.mark.parametrize(("value", "status"), [(True, 200), ("true", 200), (0, 422), (1.0, 422), ("maybe", 422)])
async def test_what_is_true(connect: Connect, value: Any, status: int) -> None:
    async with connect() as (client, _):
        answer = await client.post("/rerank", json=BODY | {"return_documents": value})
    assert answer.status_code == status
