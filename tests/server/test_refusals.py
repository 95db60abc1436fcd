"""Refusals: who is turned away, when there is no answer, and requests that nobody waits for, in this process."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from bodies import BODY, DOCUMENTS, TEXTS
from checkpoints import TINY, random_tensors, write_checkpoint
from devices import busy_device

from mlx_rerank.server.handler import Bounds
from mlx_rerank.server.served import ModelSpec
from mlx_rerank.server.settings import Settings
from server.conftest import Connect

pytestmark = pytest.mark.anyio


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


@pytest.mark.parametrize("documents", [["bear " * 100] * 2, ["\ufdfa" * 30] * 2])
async def test_texts_that_are_too_much_together(connect: Connect, documents: list[str]) -> None:
    async with connect(bounds=Bounds(characters=1000)) as (client, _):
        answer = await client.post("/rerank", json=BODY | {"documents": documents})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "texts_too_long")
        assert "more than 1000 characters" in answer.json()["message"]
        assert (await client.post("/rerank", json=BODY | {"documents": documents[:1]})).status_code == 200


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
    assert "test_refusals.py:" in vars(record)["where"]


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


async def test_an_explanation_counts_as_the_pairs_it_computes(connect: Connect) -> None:
    async with connect(bounds=Bounds(queue=100, timeout=0.2)) as (client, _):
        with busy_device():
            first = asyncio.create_task(client.post("/explain", json={"query": "a", "document": "b"}))
            await asyncio.sleep(0.05)
            second = await client.post("/rerank", json=BODY)
            late = await first
    assert (second.status_code, late.status_code) == (429, 504)
