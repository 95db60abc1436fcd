"""Words that decide an answer: of programs with bodies of their own, of peers whose fields alone are sent."""

from typing import Any

import pytest
from bodies import BODY, DOCUMENTS, TEXTS

from mlx_rerank import Reranker
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.windows import Windows
from mlx_rerank.scoring.stopping import Stop
from mlx_rerank.server.reading import Bounds
from mlx_rerank.server.settings import Settings
from server.conftest import Connect

pytestmark = pytest.mark.anyio
ROW = {"index", "relevance_score"}
CANDIDATES = [{"id": f"c{i}", "text": text, "base_score": 0.1} for i, text in enumerate(DOCUMENTS)]
LONG = "bear " * 40 + "panda " * 40


@pytest.mark.parametrize(
    ("path", "answer", "row", "refusal"),
    [
        ("/cohere/v2/rerank", {"id", "results", "meta"}, ROW, {"message"}),
        ("/jina/v1/rerank", {"id", "model", "results", "usage"}, ROW | {"document"}, {"detail"}),
        ("/voyage/v1/rerank", {"object", "data", "model", "usage"}, ROW | {"document"}, {"detail"}),
        ("/vllm/rerank", {"id", "model", "results", "usage"}, ROW | {"document"}, {"error"}),
        ("/infinity/rerank", {"id", "object", "created", "model", "results", "usage"}, ROW, {"error", "detail"}),
        ("/tei/rerank", None, {"index", "score"}, {"error", "error_type"}),
    ],
)
@pytest.mark.parametrize("more", [{}, {"top_n": 1, "top_k": None}, {"truncation": True}, {"top_k": 2}])
async def test_below_a_prefix_only_the_peers_fields_are_sent(
    connect: Connect, path: str, answer: set[str] | None, row: set[str], refusal: set[str], more: dict[str, Any]
) -> None:
    async with connect() as (client, _):
        found = (await client.post(path, json=BODY | more)).json()
        refused = await client.post(path, json=BODY | {"documents": []})
        rows = found if answer is None else found.get("results") or found["data"]
        scored = (await client.post("/vllm/score", json={"text_1": "panda", "text_2": ["bear"]})).json()
    assert answer is None or found.keys() == answer
    assert all(set(one) == row for one in rows)
    assert (refused.status_code, refused.json().keys()) == (400, refusal)
    assert scored["data"][0].keys() == {"index", "object", "score"}


async def test_the_words_of_a_body_decide_at_the_root(connect: Connect) -> None:
    async with connect() as (client, _):
        common = (await client.post("/", json=BODY | {"model": "m", "top_n": 1})).json()
        tei = (await client.post("/", json=TEXTS)).json()
    assert common["results"][0].keys() >= ROW
    assert tei[0].keys() >= {"index", "score"}


@pytest.mark.parametrize("prefix", ["", "/rag-api"])
async def test_candidates(connect: Connect, tiny_reranker: Reranker, prefix: str) -> None:
    body = {"profile": "fast-v1", "query": "panda", "candidates": CANDIDATES, "top_n": 2}
    async with connect() as (client, _):
        found = (await client.post(f"{prefix}/v1/rerank", json=body)).json()
        refused = (await client.post(f"{prefix}/v1/rerank", json=body | {"candidates": [{"id": "a"}]})).json()
    expected = tiny_reranker.rank("panda", DOCUMENTS, top_n=2)
    assert (found.keys(), found["profile"]) == ({"profile", "model", "results"}, "fast-v1")
    assert [(row["id"], row["index"]) for row in found["results"]] == [(f"c{r.index}", r.index) for r in expected]
    assert [row["score"] for row in found["results"]] == pytest.approx([r.score for r in expected], abs=1e-5)
    assert "candidates[0] has no text" in refused["message"]


@pytest.mark.parametrize("path", ["/huggingface", "/huggingface/v1/rerank", "/", "/rerank"])
async def test_inputs(connect: Connect, tiny_reranker: Reranker, path: str) -> None:
    async with connect() as (client, _):
        body = {"inputs": {"query": "panda", "passages": DOCUMENTS}, "top_n": 1, "documents": None}
        found = (await client.post(path, json=body)).json()
        refused = await client.post("/huggingface", json={"inputs": ["a"]})
    assert found.keys() == {"scores"}
    expected = tiny_reranker.score([("panda", text) for text in DOCUMENTS])
    assert found["scores"] == pytest.approx(expected.tolist(), abs=1e-5)
    assert (refused.status_code, refused.json()["error"][:8]) == (422, "`inputs`")


async def test_probes_need_no_key(connect: Connect) -> None:
    async with connect(settings=Settings(keys=("secret",))) as (client, _):
        found = [(await client.get(path)).status_code for path in ("/.well-known/ready", "/.well-known/live", "/meta")]
    assert found == [204, 204, 401]


@pytest.mark.parametrize(("path", "more"), [("/rerank", {"property": ""}), ("/weaviate/rerank", {})])
async def test_properties(connect: Connect, tiny_reranker: Reranker, path: str, more: dict[str, Any]) -> None:
    async with connect() as (client, _):
        for probe in ("/.well-known/ready", "/.well-known/live", "/weaviate/.well-known/ready"):
            assert (await client.get(probe)).status_code == 204
        assert (await client.get("/meta")).json()["model_id"] == "tiny"
        found = (await client.post(path, json=BODY | more)).json()
        refused = (await client.post(path, json=BODY | more | {"documents": []})).json()
    assert found.keys() == {"query", "scores"}
    assert [row["document"] for row in found["scores"]] == DOCUMENTS
    expected = tiny_reranker.score([("panda", text) for text in DOCUMENTS])
    assert [row["score"] for row in found["scores"]] == pytest.approx(expected.tolist(), abs=1e-5)
    assert isinstance(refused["error"], str)


@pytest.mark.parametrize("path", ["/v1/ranking", "/ranking", "/nvidia/v1/ranking", "/v1/reranking", "/nvidia"])
async def test_passages(connect: Connect, tiny_reranker: Reranker, path: str) -> None:
    body = {"model": "m", "query": {"text": "panda"}, "passages": [{"text": text} for text in DOCUMENTS]}
    long = {"passages": [{"text": LONG}]}
    async with connect() as (client, _):
        found = (await client.post(path, json=body)).json()
        end = (await client.post(path, json=body | long | {"truncate": "END"})).status_code
        none = (await client.post(path, json=body | long | {"truncate": "NONE"})).json()
        wrong = (await client.post(path, json=body | {"truncate": True})).json()
        other = (await client.post("/nvidia/v1/ranking", json={"documents": DOCUMENTS})).json()
        empty = (await client.post("/nvidia/v1/ranking", json={"query": "panda"})).json()
        scored = (await client.post("/nvidia/score", json={"text_1": "panda", "text_2": "bear"})).json()
    expected = tiny_reranker.rank("panda", DOCUMENTS, raw_scores=True)
    assert [row["index"] for row in found["rankings"]] == [row.index for row in expected]
    assert [row["logit"] for row in found["rankings"]] == pytest.approx([row.score for row in expected], abs=1e-5)
    assert (end, none["error"]["param"], wrong["error"]["param"]) == (200, "passages", "truncate")
    assert other["message"] == "query is missing among the fields documents: send it"
    assert empty["message"] == "`passages` is empty, or missing among the fields query: send at least one text"
    assert 0 < scored["data"][0]["score"] < 1  # only a ranking has words of its own


@pytest.mark.parametrize(
    ("sent", "limits"),
    [
        ({"truncation_side": "left"}, Limits(64, truncation_side="left")),
        ({"truncation_direction": "Left"}, Limits(64, truncation_side="left")),
        ({"truncation_direction": "Right"}, Limits(64)),
        ({"max_tokens_per_doc": 9}, Limits(64, document_max_length=9)),
        ({"max_tokens_per_doc": 0, "max_tokens_per_query": 0, "max_chunks_per_doc": 0}, Limits(64)),
        ({"max_tokens_per_query": 2}, Limits(64, query_max_length=2)),
        ({"max_chunks_per_doc": 10}, Limits(64)),
        ({"overlap_tokens": 5, "long_documents": "windows"}, Limits(64, long_documents=Windows(overlap=5))),
    ],
)
@pytest.mark.parametrize("path", ["/rerank", "/score"])
async def test_fields_that_change_scores_are_heeded(
    connect: Connect, tiny_reranker: Reranker, sent: dict[str, Any], limits: Limits, path: str
) -> None:
    query = "panda bear the panda"
    async with connect() as (client, _):
        found = (await client.post(path, json={"query": query, "documents": [LONG]} | sent)).json()
    (row,) = found.get("results") or found["data"]
    expected = tiny_reranker.model.logits([(query, LONG)], limits, Stop())
    score = row.get("relevance_score", row.get("score"))
    assert score == pytest.approx(tiny_reranker.model.mapping(expected.logits)[0], abs=1e-5)
    assert row["truncated_tokens"] == expected.truncated_tokens[0]


@pytest.mark.parametrize("name", ["use_activation", "activation", "softmax"])
async def test_other_words_for_logits(connect: Connect, tiny_reranker: Reranker, name: str) -> None:
    async with connect() as (client, _):
        found = (await client.post("/rerank", json=BODY | {name: False, "top_n": 1})).json()["results"][0]
    assert found["relevance_score"] == pytest.approx(
        tiny_reranker.rank("panda", DOCUMENTS, raw_scores=True)[0].score, abs=1e-5
    )


@pytest.mark.parametrize(
    ("sent", "word"),
    [
        ({"instruction": "Judge."}, "instruction: is not supported"),
        ({"chat_template": "{{a}}"}, "chat_template"),
        ({"add_special_tokens": False}, "add_special_tokens"),
        ({"truncation_side": "middle"}, "truncation_side"),
        ({"max_chunks_per_doc": 1, "long_documents": "windows"}, "max_chunks_per_doc is 1"),
        ({"documents": None}, "among the fields query:"),
        ({"documents": None, "input": ["a"]}, "among the fields input, query:"),
        ({"documents": None, "docs": ["a"], "inputs": ["a"]}, "among the fields docs, inputs, query:"),
        ({"query": None, "q": "a"}, "query is missing among the fields documents, q:"),
        ({"documents": ["a", None]}, "documents.1: must be a text, or an object with one, not null"),
        ({"documents": [LONG, 5]}, "documents.1: must be a text, or an object with one, not a number"),
        ({"query": "a" * 999}, "query has 999 characters"),
        ({"documents": ["a", "b" * 999]}, "documents[1] has 999 characters"),
        ({"truncate_prompt_tokens": 99999}, "truncate_prompt_tokens 99999 exceeds"),
    ],
)
async def test_what_cannot_be_heeded_is_refused_by_its_own_name(
    connect: Connect, sent: dict[str, Any], word: str
) -> None:
    async with connect(bounds=Bounds(document_characters=500)) as (client, _):
        refused = await client.post("/rerank", json={"query": "panda", "documents": [LONG]} | sent)
    assert 400 <= refused.status_code < 500
    assert word in refused.json()["message"]


@pytest.mark.parametrize("packing", [None, "gzip", "br"])
async def test_packed_bodies(connect: Connect, packing: str | None) -> None:
    headers = {"content-type": "application/json"} | ({"content-encoding": packing} if packing else {})
    async with connect() as (client, _):
        refused = await client.post("/rerank", content=b"\x1f\x8b\x08" if packing != "br" else b"{}", headers=headers)
    assert (refused.status_code, f"packed with {packing or 'gzip'}" in refused.json()["message"]) == (415, True)


@pytest.mark.parametrize(
    "path",
    ["/v1", "/v1/", "/v2", "/api", "/v1/v1/rerank", "//rerank", "//v1//rerank/", "/v1/reranks", "/rerank/rerank",
     "/v1/rerank/", "/v1/rerank/v1/rerank", "/v2/v1/rerank", "/api/v1/rerank", "/V1/Rerank", "/rerankers", "/cohere",
     "/cohere/v2", "/cohere//v1/v2/rerank", "/rerank/v1", "/v1/rerank ", "/v1/cohere/rerank",
     "/cohere/cohere/v1/rerank"],
)  # fmt: skip
async def test_addresses_that_people_paste(connect: Connect, path: str) -> None:
    async with connect() as (client, _):
        found = await client.post(path, json=BODY)
    assert len(found.json()["results"]) == len(DOCUMENTS)


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/v1/rerankk", "/v1/rerank"),
        ("/cohere/v1/chat", "/cohere/v1/rerank"),
        ("/scoer", "/score"),
        ("/a/b", "/v1/rerank"),
        ("/v1/chat/completions", "/v1/rerank"),
        ("/v1/chat/completions/rerank", "/v1/rerank"),
        ("/api/tags", "/api/rerank"),
        ("/auth", "/v1/rerank"),
    ],
)
async def test_an_address_that_leads_nowhere_names_the_right_one(connect: Connect, path: str, right: str) -> None:
    async with connect() as (client, _):
        found = await client.post(path, json=BODY)
        facts = [
            (await client.get(path)).status_code
            for path in ("/v1/v1/models", "//health", "/v1/info", "/v1/rerank/ready")
        ]
        browsed = await client.get(right)
    assert (browsed.status_code, browsed.json()["message"]) == (405, f"{right} takes no GET: use POST")
    assert found.status_code == 404
    assert f"use {right}," in found.json()["message"]
    assert facts == [200] * 4
