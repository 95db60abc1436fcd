"""The pool: names, loading on demand, unloading when idle or when memory is short."""

import asyncio
import json
import shutil
import threading
import time
from pathlib import Path

import bounds
import pytest
from checkpoints import write_checkpoint
from devices import busy_device
from fake_hub import COMMIT, FakeHub

from mlx_rerank.errors import CheckpointError, InputError, RefusedError
from mlx_rerank.scoring.loaded import ModelOptions
from mlx_rerank.server import served as served_module
from mlx_rerank.server.handler import Bounds
from mlx_rerank.server.pool import Pool
from mlx_rerank.server.served import ModelSpec, Served
from server.conftest import Connect

pytestmark = pytest.mark.anyio
BODY = {"query": "panda", "documents": ["bear", "the bear"]}


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("mini", ("mini", "mini", None)),
        ("mini@float16", ("mini@float16", "mini", "float16")),
        ("half=mini@float16", ("half", "mini", "float16")),
        ("BAAI/bge-reranker-v2-m3", ("BAAI/bge-reranker-v2-m3", "BAAI/bge-reranker-v2-m3", None)),
        ("m3=BAAI/bge-reranker-v2-m3", ("m3", "BAAI/bge-reranker-v2-m3", None)),
        ("at=some@where", ("at", "some@where", None)),
    ],
)
def test_specs(text: str, spec: tuple[str, str, str | None]) -> None:
    assert ModelSpec.parse(text) == ModelSpec(*spec)


def test_a_directory_is_called_by_its_last_part(tiny: Path) -> None:
    assert ModelSpec.parse(str(tiny)) == ModelSpec("tiny", str(tiny))


@pytest.mark.parametrize("text", ["", " ", "name=", "=mini", "@float16"])
def test_specs_of_nothing(text: str) -> None:
    with pytest.raises(InputError, match="is not"):
        ModelSpec.parse(text)


async def test_a_revision_is_of_a_hub_model(hub: FakeHub, tiny: Path, tmp_path: Path) -> None:
    hub.publish("test/tiny", tiny)
    options = ModelOptions(revision=COMMIT, cache_dir=tmp_path / "cache")
    served = Served(ModelSpec("tiny", "test/tiny"), options)
    await served.load()
    assert (await served.resolve()).is_relative_to(tmp_path / "cache")
    assert served.reranker
    with pytest.raises(InputError, match=r"revision .* is for models of the hub, and 'mini' is built in"):
        await Served(ModelSpec("mini", "mini"), options).load()


def test_pools_of_nothing_and_of_twins() -> None:
    with pytest.raises(InputError, match="models of different names"):
        Pool([])
    with pytest.raises(InputError, match="models of different names"):
        Pool([ModelSpec("a", "mini"), ModelSpec("a", "mini", "float16")])


def three(tiny: Path) -> list[ModelSpec]:
    return [ModelSpec(name, str(tiny)) for name in ("a", "b", "c")]


async def test_a_tokenizer_that_panics_leaves_no_server_that_is_ready(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "model")
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    for part in ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, {"normalizer": {"type": "Precompiled",
                 "precompiled_charsmap": "AQAA"}}):  # fmt: skip
        (directory / "tokenizer.json").write_text(json.dumps(tokenizer | part))
        pool = Pool([ModelSpec("a", str(directory))])
        with pytest.raises(RefusedError, match="a cannot be loaded") as caught:
            await pool.start()
        assert isinstance(caught.value.__cause__, CheckpointError)
        assert not pool.ready


async def test_models_are_loaded_when_asked_for(connect: Connect, tiny: Path) -> None:
    async with connect(specs=three(tiny)) as (client, handler):
        loaded = lambda: [served.spec.name for served in handler.pool if served.in_memory]  # noqa: E731
        assert loaded() == ["a"]
        answers = await asyncio.gather(*(client.post("/rerank", json=BODY | {"model": "c"}) for _ in range(5)))
        assert [answer.status_code for answer in answers] == [200] * 5
        assert loaded() == ["a", "c"]


async def test_warming_up_loads_all_and_scores(connect: Connect, tiny: Path) -> None:
    async with connect(specs=three(tiny), warm_up=True) as (_, handler):
        assert all(served.in_memory for served in handler.pool)
        assert all(served.reranker.engine.tokens > 0 for served in handler.pool if served.reranker)
        assert all(served.idle for served in handler.pool)


@pytest.mark.numeric
async def test_idle_models_are_unloaded_and_come_back(connect: Connect, tiny: Path) -> None:
    async with connect(specs=three(tiny), keep_alive=0.05) as (client, handler):
        before = (await client.post("/rerank", json=BODY)).json()["results"]
        async with handler.pool.use(handler.pool.named("b")):
            await asyncio.sleep(0.1)
            await handler.pool.unload_idle()
            assert [served.in_memory for served in handler.pool] == [False, True, False]  # b is in use
            assert handler.pool.default.reranker
            assert not handler.pool.default.reranker.loaded
        await handler.pool.unload_idle()
        assert [served.in_memory for served in handler.pool] == [False, True, False]  # b was, a moment ago
        after = (await client.post("/rerank", json=BODY)).json()["results"]
        assert after == [row | {"relevance_score": bounds.near(row["relevance_score"])} for row in before]
        assert handler.pool.default.in_memory


async def test_models_stay_without_a_keep_alive_time(connect: Connect) -> None:
    async with connect() as (_, handler):
        handler.pool.default.used = time.monotonic() - 1e6
        await handler.pool.unload_idle()
        assert handler.pool.default.in_memory


async def test_the_model_used_least_recently_makes_room(connect: Connect, tiny: Path) -> None:
    async with connect(specs=three(tiny), memory_limit=10**9) as (client, handler):
        size = handler.pool.default.memory
        assert 100_000 < size < 1_000_000  # the tiny shape in float32
    async with connect(specs=three(tiny), memory_limit=2 * size) as (client, handler):
        for name, loaded in (("b", "ab"), ("a", "ab"), ("c", "ac"), ("b", "bc")):
            assert (await client.post("/rerank", json=BODY | {"model": name})).status_code == 200
            assert "".join(served.spec.name for served in handler.pool if served.in_memory) == loaded
        async with handler.pool.use(handler.pool.named("b")), handler.pool.use(handler.pool.named("c")):
            waiting = asyncio.create_task(client.post("/rerank", json=BODY | {"model": "a"}))
            await asyncio.sleep(0.1)
            late = asyncio.create_task(client.post("/rerank", json=BODY | {"model": "c"}))  # which has to go first
            await asyncio.sleep(0.1)
            assert not waiting.done()
            assert not late.done()
        assert [(await task).status_code for task in (waiting, late)] == [200, 200]
        assert all(not served.active and not served.waiters for served in handler.pool)


async def test_a_model_that_is_larger_than_the_limit(tiny: Path) -> None:
    with pytest.raises(
        RefusedError,
        match=r"needs 0.3 MB, more than the limit of 0.0 MB: start the server with a higher --memory-limit",
    ):
        await Pool([ModelSpec("a", str(tiny))], memory_limit=1000).start()


async def test_a_model_that_cannot_be_loaded(connect: Connect, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no cannot be loaded: the server's log says why") as caught:
        await Pool([ModelSpec("no", "nothing")]).start()
    assert "'nothing' is not a directory" in str(caught.value.__cause__)
    place = tmp_path / "later"
    async with connect(specs=[ModelSpec("a", str(tiny)), ModelSpec("b", str(place))]) as (client, _):
        answer = await client.post("/rerank", json=BODY | {"model": "b"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_error")
        assert str(tmp_path) not in answer.text + (await client.get("/v1/models")).text
        shutil.copytree(tiny, place)
        assert (await client.post("/rerank", json=BODY | {"model": "b"})).status_code == 200


async def test_a_load_goes_on_when_who_asked_for_it_is_gone(
    connect: Connect, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(specs=three(tiny)) as (client, handler):
        made, build = [], served_module.Reranker

        def slow(*arguments: object, **options: object) -> object:
            time.sleep(0.2)
            made.append(1)
            return build(*arguments, **options)  # pyright: ignore[reportArgumentType]

        monkeypatch.setattr(served_module, "Reranker", slow)
        first = asyncio.create_task(client.post("/rerank", json=BODY | {"model": "b"}))
        await asyncio.sleep(0.05)
        first.cancel()
        assert (await client.post("/rerank", json=BODY | {"model": "b"})).status_code == 200
        assert made == [1]
        assert {served.spec.name: served.active for served in handler.pool} == {"a": 0, "b": 0, "c": 0}


async def test_a_start_that_fails_in_a_way_that_nobody_expected(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow(*_: object, **__: object) -> None:
        raise OverflowError

    monkeypatch.setattr(served_module, "Reranker", overflow)
    with pytest.raises(RefusedError, match="a cannot be loaded"):
        await Pool([ModelSpec("a", str(tiny))]).start()


async def test_downloads_that_stall_hold_up_nobody_else(
    connect: Connect, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, find = threading.Event(), served_module.hub.resolve
    monkeypatch.setattr(
        served_module.hub, "resolve", lambda model, **_: find(model) if str(model) == str(tiny) else gate.wait()
    )
    stalled = [ModelSpec(f"s{i}", f"some/model{i}") for i in range(40)]
    async with connect(specs=[ModelSpec("a", str(tiny)), *stalled], bounds=Bounds(timeout=1.0)) as (client, _):
        asked = [asyncio.create_task(client.post("/rerank", json=BODY | {"model": spec.name})) for spec in stalled]
        await asyncio.sleep(0.1)
        assert (await client.post("/rerank", json=BODY)).status_code == 200
        assert {(await task).status_code for task in asked} == {504}
        gate.set()


async def test_a_model_is_not_unloaded_under_batches_that_are_left_over(connect: Connect) -> None:
    async with connect(keep_alive=0.0, bounds=Bounds(timeout=0.05)) as (client, handler):
        with busy_device():
            answer = await client.post("/rerank", json=BODY | {"documents": ["bear " * i for i in range(60)]})
            assert answer.status_code == 504  # and some of its batches are with the device
            await handler.pool.unload_idle()
            assert handler.pool.default.in_memory
        while not handler.pool.default.idle:
            await asyncio.sleep(0.01)
        await handler.pool.unload_idle()
        assert not handler.pool.default.in_memory
        assert handler.pool.default.reranker
        assert not handler.pool.default.reranker.loaded


async def test_the_queue_is_bounded_while_a_model_loads(
    connect: Connect, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, build = threading.Event(), served_module.Reranker
    async with connect(specs=three(tiny), bounds=Bounds(queue=5)) as (client, _):
        monkeypatch.setattr(served_module, "Reranker", lambda *a, **k: gate.wait() and build(*a, **k))
        asked = [asyncio.create_task(client.post("/rerank", json=BODY | {"model": "b"})) for _ in range(5)]
        await asyncio.sleep(0.2)
        gate.set()
        assert sorted([(await task).status_code for task in asked]) == [200, 200, 429, 429, 429]


async def test_one_model_does_not_keep_another_from_memory_for_ever(connect: Connect, tiny: Path) -> None:
    async with connect(specs=three(tiny), memory_limit=500_000) as (client, _):  # room for one
        stop = asyncio.Event()

        async def keep_asking() -> None:
            while not stop.is_set():
                await client.post("/rerank", json=BODY)

        busy = [asyncio.create_task(keep_asking()) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert (await asyncio.wait_for(client.post("/rerank", json=BODY | {"model": "b"}), 20)).status_code == 200
        stop.set()
        await asyncio.gather(*busy)


async def test_what_goes_while_it_waits_is_lent_nothing(connect: Connect, tiny: Path) -> None:
    async with connect(specs=three(tiny), memory_limit=500_000) as (client, handler):
        async with handler.pool.use(handler.pool.default):
            waiting = asyncio.create_task(client.post("/rerank", json=BODY | {"model": "b"}))
            await asyncio.sleep(0.1)
            waiting.cancel()
        assert (await client.post("/rerank", json=BODY)).status_code == 200
        assert [served.active for served in handler.pool] == [0, 0, 0]


async def test_what_goes_in_the_moment_in_which_a_model_is_lent(
    connect: Connect, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, build = threading.Event(), served_module.Reranker
    async with connect(specs=three(tiny)) as (client, handler):
        monkeypatch.setattr(served_module, "Reranker", lambda *a, **k: gate.wait() and build(*a, **k))
        served = handler.pool.named("b")
        asked = asyncio.create_task(handler.pool.use(served).__aenter__())
        while not served.waiters:
            await asyncio.sleep(0.001)
        handler.pool._lend(served, None)
        assert served.active == 1
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert served.active == 0
        gate.set()
        assert (await client.post("/rerank", json=BODY | {"model": "b"})).status_code == 200
