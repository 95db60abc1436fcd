"""Routes and shapes: what each kind of client is answered, in this process."""

import asyncio
import re
from pathlib import Path
from typing import Any

import bounds
import httpx
import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from devices import busy_device

from mlx_rerank import Reranker
from mlx_rerank.server.app import RERANK_PATHS
from mlx_rerank.server.dialects import PREFIXES
from mlx_rerank.server.handler import Bounds
from mlx_rerank.server.served import ModelSpec
from mlx_rerank.server.settings import Settings
from server.conftest import Connect

pytestmark = pytest.mark.anyio

DOCUMENTS = ["the bear", "what is panda", "熊猫吃竹子", "", "a bear eats the panda", "the bear"]
BODY = {"query": "panda", "documents": DOCUMENTS}
PARTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
WANTED = {"return_documents": True}
TEXTS = {"query": "panda", "texts": DOCUMENTS}


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize("prefix", ["", *(f"/{name}" for name in PREFIXES)])
@pytest.mark.parametrize("path", RERANK_PATHS)
async def test_every_route_ranks(connect: Connect, tiny_reranker: Reranker, prefix: str, path: str) -> None:
    async with connect() as (client, _):
        answer = (await client.post(prefix + path, json=BODY)).json()
    rows = answer if isinstance(answer, list) else answer.get("results", answer.get("data"))
    expected = tiny_reranker.rank("panda", DOCUMENTS)
    bounds.apart([result.score for result in expected])
    assert [row["index"] for row in rows] == [result.index for result in expected]
    name = "score" if prefix == "/tei" or prefix + path == "/" else "relevance_score"
    assert [row[name] for row in rows] == pytest.approx([result.score for result in expected], abs=1e-5)
    assert not {"score", "relevance_score"} <= rows[0].keys()
    assert ("data" in answer) == (prefix == "/voyage")


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
        for path in ("/rerank", "/", "/v1/rerank", "/cohere/rerank", "/voyage/rerank"):
            answer = await client.post(path, json=TEXTS | {"return_text": True, "truncate": None, "top_n": 2})
            rows = answer.json()
            assert len(rows) == 2
            assert set(rows[0]) == {"index", "score", "text", "truncated_tokens", "span"}
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


async def test_while_loading_and_while_stopping(connect: Connect) -> None:
    async with connect(start=False) as (client, handler):
        for method, path in (("GET", "/ready"), ("POST", "/rerank"), ("GET", "/info")):
            answer = await client.request(method, path, json=BODY)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await client.get("/health")).status_code == 200
        await handler.pool.start()
        assert (await client.get("/ready")).status_code == 200
        assert (await client.post("/rerank", json=BODY)).status_code == 200
        handler.draining = True
        assert (await client.get("/ready")).status_code == 503
        assert (await client.get("/health")).status_code == 200
        answer = await client.post("/rerank", json=BODY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "stopping")
        assert answer.headers["connection"] == "close"
        assert (await client.post("/", json=TEXTS)).json()["error_type"] == "Unhealthy"


async def test_a_full_queue(connect: Connect) -> None:
    async with connect(bounds=Bounds(queue=10)) as (client, handler):
        with busy_device():
            waiting = asyncio.create_task(client.post("/rerank", json=BODY))
            while not handler.pool.default.pairs:
                await asyncio.sleep(0.001)
            refused = await client.post("/rerank", json=BODY)
            small = asyncio.create_task(client.post("/rerank", json=BODY | {"documents": ["a"]}))
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "6 documents are waiting" in refused.json()["message"]
        assert [(await task).status_code for task in (waiting, small)] == [200, 200]
        alone = await client.post("/rerank", json=BODY | {"documents": DOCUMENTS * 4})
        assert alone.status_code == 200  # more than the queue holds, but nobody else is there
        assert handler.pool.default.pairs == 0


async def test_a_deadline(connect: Connect) -> None:
    async with connect(bounds=Bounds(timeout=0.1)) as (client, handler):
        with busy_device():
            answer = await client.post("/rerank", json=BODY)
            rows = handler.pool.default.scheduler.rows  # pyright: ignore[reportOptionalMemberAccess]
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        assert (await client.post("/", json=TEXTS)).status_code == 200
        assert handler.pool.default.scheduler.rows <= rows + 5  # pyright: ignore[reportOptionalMemberAccess]


async def test_a_model_that_makes_no_numbers(connect: Connect, tmp_path: Path) -> None:
    tensors = random_tensors(TINY)
    tensors["classifier.out_proj.bias"][:] = np.nan
    broken = write_checkpoint(tmp_path / "broken", tensors=tensors)
    async with connect(specs=[ModelSpec("broken", str(broken))]) as (client, _):
        answer = await client.post("/rerank", json=BODY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "non_finite_score")
        assert (await client.post("/", json=TEXTS)).json()["error_type"] == "Backend"


async def test_an_error_that_nobody_expected(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect() as (client, handler):

        async def fail(*_: object) -> None:
            raise RuntimeError("the bear")

        monkeypatch.setattr(handler, "rerank", fail)
        answer = await client.post("/rerank", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "bear" not in answer.text
    assert "bear" not in caplog.text
    (record,) = [record for record in caplog.records if record.message == "failed"]
    assert vars(record)["error"] == "RuntimeError"
    assert "test_app.py:" in vars(record)["where"]


async def test_keys(connect: Connect) -> None:
    async with connect(settings=Settings(keys=("sesame", "ключ"))) as (client, _):
        for header in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "sesame"},
            {"authorization": "Basic sesame"},
        ):
            answer = await client.post("/rerank", json=BODY, headers=header)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        for path in ("/v1/models", "/metrics", "/info"):
            assert (await client.get(path)).status_code == 401
        for path in ("/", "/health", "/ready", "/page/page.css", "/openapi.json", "/v1/cluster/auth"):
            assert (await client.get(path)).status_code == 200
        for key in (b"sesame", "ключ".encode()):
            answer = await client.post("/rerank", json=BODY, headers={b"authorization": b"bearer " + key})
            assert answer.status_code == 200


async def test_other_origins(connect: Connect) -> None:
    preflight = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    asked = {"access-control-request-headers": "authorization,content-type"}
    async with connect() as (client, _):
        answer = await client.post("/rerank", json=BODY, headers={"origin": "https://chat.example"})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
        assert (await client.options("/rerank", headers=preflight | asked)).status_code == 403
    async with connect(settings=Settings(origins=("https://chat.example",), keys=("k",))) as (client, _):
        answer = await client.options("/rerank", headers=preflight | asked)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
        answer = await client.post(
            "/rerank", json=BODY, headers={"origin": "https://chat.example", "authorization": "Bearer k"}
        )
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
        answer = await client.post(
            "/rerank", json=BODY, headers={"origin": "https://other.example", "authorization": "Bearer k"}
        )
        assert answer.status_code == 403


async def test_other_names_of_the_machine(connect: Connect) -> None:
    async with connect(settings=Settings(hosts=("Mac.local",))) as (client, _):
        for host, status in (("mac.local:8787", 200), ("192.168.1.7:8787", 200), ("mac.example", 403)):
            assert (await client.get("/health", headers={"host": host})).status_code == status


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


async def test_a_client_that_goes_is_worked_for_no_longer(connect: Connect) -> None:
    async with connect() as (client, handler):
        app: Any = client._transport.app  # pyright: ignore[reportAttributeAccessIssue]
        gone, statuses = asyncio.Event(), []
        body = httpx.Request("POST", "http://localhost/rerank", json=BODY | {"documents": DOCUMENTS * 50})
        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": "/rerank", "raw_path": b"/rerank",
            "query_string": b"", "root_path": "", "scheme": "http", "server": ("localhost", 80), "client": None,
            "headers": [(name.lower(), value) for name, value in body.headers.raw],
        }  # fmt: skip
        messages = iter([{"type": "http.request", "body": body.content, "more_body": False}])

        async def receive() -> dict[str, Any]:
            for message in messages:
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            statuses.append(message.get("status"))

        with busy_device():
            answering = asyncio.create_task(app(scope, receive, send))
            while not handler.pool.default.pairs:
                await asyncio.sleep(0.001)
            gone.set()
            await answering
            assert handler.pool.default.pairs == 0
            assert handler.under_way == 0
        assert statuses[0] == 499
        assert (await client.post("/rerank", json=BODY)).status_code == 200
        assert handler.pool.default.scheduler.rows < 40  # pyright: ignore[reportOptionalMemberAccess]


async def test_heads_alone(connect: Connect) -> None:
    async with connect() as (client, _):
        for path in ("/", "/health", "/v1/models", "/page/page.js"):
            assert (await client.head(path)).status_code == 200
        assert (await client.delete("/")).headers["allow"] == "GET, POST"
        for path in ("/page/page.js", "/jina/page/page.js"):
            answer = await client.delete(path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_long_texts_are_encoded_a_slice_at_a_time(connect: Connect, tiny_reranker: Reranker) -> None:
    documents = [f"bear {i % 40} " * (400 if i % 50 == 0 else 1) for i in range(700)]
    async with connect() as (client, _):
        answer = await client.post("/rerank", json={"query": "panda", "documents": documents, "raw_scores": True})
    found = {row["index"]: row["relevance_score"] for row in answer.json()["results"]}
    expected = tiny_reranker.score([("panda", document) for document in documents], raw_scores=True)
    assert [found[i] for i in range(700)] == pytest.approx(expected.tolist(), abs=1e-5)
    assert int(answer.headers["x-compute-tokens"]) < answer.json()["usage"]["total_tokens"] / 5  # equal ones once


async def test_bodies_that_fill_the_memory_together(connect: Connect) -> None:
    async with connect(settings=Settings(body_bytes=10_000)) as (client, _):
        with busy_device():
            body = BODY | {"documents": ["bear " * 1900]}
            held = [asyncio.create_task(client.post("/rerank", json=body)) for _ in range(16)]
            await asyncio.sleep(0.3)
            refused = [await client.post("/rerank", json=body) for _ in range(2)]
        assert refused[-1].status_code == 429
        assert refused[-1].headers["retry-after"] == "1"
        assert [(await task).status_code for task in held] == [200] * 16
        assert (await client.post("/rerank", json=body)).status_code == 200


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


async def test_an_explanation_counts_as_the_pairs_it_computes(connect: Connect) -> None:
    async with connect(bounds=Bounds(queue=100, timeout=0.2)) as (client, _):
        with busy_device():
            first = asyncio.create_task(client.post("/explain", json={"query": "a", "document": "b"}))
            await asyncio.sleep(0.05)
            second = await client.post("/rerank", json=BODY)
            late = await first
    assert (second.status_code, late.status_code) == (429, 504)


@pytest.mark.parametrize(("value", "status"), [(True, 200), ("true", 200), (0, 422), (1.0, 422), ("maybe", 422)])
async def test_what_is_true(connect: Connect, value: Any, status: int) -> None:
    async with connect() as (client, _):
        answer = await client.post("/rerank", json=BODY | {"return_documents": value})
    assert answer.status_code == status
