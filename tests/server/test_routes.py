"""Routes: what each of them answers, in this process."""

import re
from pathlib import Path
from typing import Any

import bounds
import pytest
from bodies import BODY, DOCUMENTS

from mlx_rerank import Reranker
from mlx_rerank.server.addresses import RERANK_PATHS
from mlx_rerank.server.peers import PEERS
from mlx_rerank.server.served import ModelSpec
from server.conftest import Connect

pytestmark = pytest.mark.anyio


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize("prefix", ["", *(f"/{name}" for name in PEERS)])
@pytest.mark.parametrize("path", RERANK_PATHS)
async def test_every_route_ranks(connect: Connect, tiny_reranker: Reranker, prefix: str, path: str) -> None:
    async with connect() as (client, _):
        answer = (await client.post(prefix + path, json=BODY)).json()
    rows = answer if isinstance(answer, list) else answer.get("results", answer.get("data"))
    expected = tiny_reranker.rank("panda", DOCUMENTS)
    bounds.apart([result.score for result in expected])
    assert [row["index"] for row in rows] == [result.index for result in expected]
    name = "score" if prefix == "/tei" else "relevance_score"
    assert [row[name] for row in rows] == pytest.approx([result.score for result in expected], abs=1e-5)
    assert not {"score", "relevance_score"} <= rows[0].keys()
    assert ("data" in answer) == (prefix == "/voyage")


@pytest.mark.parametrize("path", ["/score", "/v1/score", "/vllm/v1/score"])
@pytest.mark.parametrize(
    "body",
    [
        {"text_1": "panda", "text_2": ["bear", "the bear"]},
        {"text_1": ["panda", "panda"], "text_2": ["bear", "the bear"]},
        {"queries": "panda", "documents": ["bear", "the bear"]},
    ],
)
async def test_scores(connect: Connect, tiny_reranker: Reranker, path: str, body: dict[str, Any]) -> None:
    async with connect() as (client, _):
        answer = (await client.post(path, json=body)).json()
    expected = tiny_reranker.score([("panda", "bear"), ("panda", "the bear")])
    assert [row["index"] for row in answer["data"]] == [0, 1]
    assert [row["score"] for row in answer["data"]] == pytest.approx(expected.tolist(), abs=1e-5)
    assert answer["object"] == "list"


@pytest.mark.parametrize(("body", "status"), [
    ({"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}, 422), ({"text_1": "a"}, 422),
    ({"text_1": [], "text_2": []}, 400), ({"text_1": "a", "text_2": []}, 400), ({"text_1": "a", "text_2": 5}, 422),
])  # fmt: skip
async def test_scores_of_no_pairs(connect: Connect, body: dict[str, Any], status: int) -> None:
    async with connect() as (client, _):
        assert (await client.post("/score", json=body)).status_code == status


@pytest.mark.numeric
async def test_names_of_models(connect: Connect, tiny: Path) -> None:
    specs = [ModelSpec("tiny", str(tiny)), ModelSpec("half", str(tiny), "float16")]
    async with connect(specs=specs) as (client, _):
        for name in (None, "tiny", "jina-reranker-v2-base-multilingual"):
            answer = (await client.post("/rerank", json=BODY | {"model": name})).json()
            assert answer["model"] == (name or "tiny")
        full, half = [(await client.post("/rerank", json=BODY | {"model": name})).json() for name in ("tiny", "half")]
        listed = (await client.get("/v1/models")).json()["data"]
    scores = [{row["index"]: row["relevance_score"] for row in answer["results"]} for answer in (full, half)]
    assert scores[0] != scores[1]
    assert list(scores[0].values()) == pytest.approx([scores[1][index] for index in scores[0]], abs=2e-2)
    assert [(model["id"], model["dtype"], model["loaded"]) for model in listed] == [
        ("tiny", "float32", True), ("half", "float16", True),
    ]  # fmt: skip
    assert str(tiny) not in str(listed)
    async with connect(refuse_unknown=True) as (client, _):
        refused = await client.post("/rerank", json=BODY | {"model": "other"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")


async def test_metrics(connect: Connect) -> None:
    async with connect() as (client, _):
        await client.post("/rerank", json=BODY | {"documents": ["bear " * 100, "bear"]})
        await client.post("/rerank", json={})
        await client.get("/no/such/route")
        text = (await client.get("/metrics")).text
    for line in (
        'mlx_rerank_requests_total{route="/rerank",status="200"} 1.0',
        'mlx_rerank_requests_total{route="/rerank",status="422"} 1.0',
        'mlx_rerank_requests_total{route="other",status="404"} 1.0',
        'mlx_rerank_pairs_total{model="tiny"} 2.0',
        'mlx_rerank_truncated_pairs_total{model="tiny"} 1.0',
        'mlx_rerank_loaded{model="tiny"} 1.0',
        'mlx_rerank_waiting_pairs{model="tiny"} 0.0',
        'mlx_rerank_queue_seconds_count{model="tiny"} 1.0',
    ):
        assert line in text.splitlines()
    assert re.search(r'mlx_rerank_computed_tokens_total\{model="tiny"\} [1-9]', text)


async def test_the_document_describes_every_route(connect: Connect) -> None:
    async with connect() as (client, _):
        document = (await client.get("/openapi.json")).json()
    assert set(document["paths"]) >= {*RERANK_PATHS, "/score", "/v1/score", "/info", "/health", "/ready", "/v1/models"}
    identities = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(set(identities)) == len(identities)


async def test_the_page_loads_nothing_from_elsewhere(connect: Connect) -> None:
    async with connect() as (client, _):
        page = await client.get("/")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        parts = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
        assert parts
        for part in parts:
            assert part.startswith("data:") or (await client.get(f"/{part.lstrip('/')}")).status_code == 200, part


async def test_heads_alone(connect: Connect) -> None:
    async with connect() as (client, _):
        for path in ("/", "/health", "/v1/models", "/page/page.js"):
            assert (await client.head(path)).status_code == 200
        assert (await client.delete("/")).headers["allow"] == "GET, POST"
        for path in ("/page/page.js", "/jina/page/page.js"):
            answer = await client.delete(path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_which_words_carried_a_score(connect: Connect, tiny: Path) -> None:
    document = "bear " * 30 + "\n\n" + "what is the panda bear? " * 8
    texts = {"query": "what is panda", "document": document}
    async with connect() as (client, _):
        plain = await client.post("/explain", json=texts | {"document": "the bear is what", "model": "other"})
        windows = await client.post("/v1/explain", json=texts | {"long_documents": "windows", "max_passes": 9})
        refused = await client.post("/explain", json=texts | {"truncate": False})
        wrong = [await client.post("/explain", json=texts | field)
                 for field in ({"document": ["a"]}, {"max_passes": 1}, {"max_passes": 9999})]  # fmt: skip
    expected = Reranker(tiny).explain("what is panda", "the bear is what")
    answer = plain.json()
    assert answer["logit"] == pytest.approx(expected.logit, abs=1e-5)
    for name, highlights in (("query", expected.query_highlights), ("document", expected.document_highlights)):
        assert [(row["start"], row["end"]) for row in answer[name]] == [(h.start, h.end) for h in highlights]
        assert [row["weight"] for row in answer[name]] == pytest.approx([h.weight for h in highlights], abs=1e-5)
    assert (answer["model"], answer["object"], answer["span"]) == ("other", "explanation", [0, 16])
    expected = Reranker(tiny, long_documents="windows").explain("what is panda", document, max_passes=9)
    assert windows.json()["span"] == list(expected.span) != [0, len(document)]
    assert len(windows.json()["document"]) == len(expected.document_highlights)
    assert (refused.status_code, [answer.status_code for answer in wrong]) == (422, [422, 422, 422])
