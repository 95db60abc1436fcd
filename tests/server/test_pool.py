"""The pool: names, loading on demand, unloading when idle or when memory is short."""

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from mlx_rerank.errors import InputError, RefusedError
from mlx_rerank.server import pool as pool_module
from mlx_rerank.server.pool import ModelSpec, Pool
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


def test_pools_of_nothing_and_of_twins() -> None:
    with pytest.raises(InputError, match="models of different names"):
        Pool([])
    with pytest.raises(InputError, match="models of different names"):
        Pool([ModelSpec("a", "mini"), ModelSpec("a", "mini", "float16")])


def three(tiny: Path) -> list[ModelSpec]:
    return [ModelSpec(name, str(tiny)) for name in ("a", "b", "c")]


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


async def test_idle_models_are_unloaded_and_come_back(connect: Connect, tiny: Path) -> None:
    async with connect(specs=three(tiny), keep_alive=0.05) as (client, handler):
        before = (await client.post("/rerank", json=BODY)).json()["results"]
        async with handler.pool.use("b"):
            await asyncio.sleep(0.1)
            await handler.pool.unload_idle()
            assert [served.in_memory for served in handler.pool] == [False, True, False]  # b is in use
            assert handler.pool.default.reranker
            assert not handler.pool.default.reranker.loaded
        await handler.pool.unload_idle()
        assert [served.in_memory for served in handler.pool] == [False, True, False]  # b was, a moment ago
        assert (await client.post("/rerank", json=BODY)).json()["results"] == before
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
        async with handler.pool.use("b"), handler.pool.use("c"):
            answer = await client.post("/rerank", json=BODY | {"model": "a"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "the models in use leave less" in answer.json()["message"]
        assert (await client.post("/rerank", json=BODY | {"model": "a"})).status_code == 200


async def test_a_model_that_is_larger_than_the_limit(tiny: Path) -> None:
    with pytest.raises(
        RefusedError, match="more than the limit of 0 MB: start the server with a higher --memory-limit"
    ):
        await Pool([ModelSpec("a", str(tiny))], memory_limit=1000).start()


async def test_a_model_that_cannot_be_loaded(connect: Connect, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no cannot be loaded: 'nothing' is not a directory"):
        await Pool([ModelSpec("no", "nothing")]).start()
    place = tmp_path / "later"
    async with connect(specs=[ModelSpec("a", str(tiny)), ModelSpec("b", str(place))]) as (client, _):
        answer = await client.post("/rerank", json=BODY | {"model": "b"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_error")
        shutil.copytree(tiny, place)
        assert (await client.post("/rerank", json=BODY | {"model": "b"})).status_code == 200


async def test_a_load_goes_on_when_who_asked_for_it_is_gone(
    connect: Connect, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(specs=three(tiny)) as (client, handler):
        made, build = [], pool_module.Reranker

        def slow(*arguments: object, **options: object) -> object:
            time.sleep(0.2)
            made.append(1)
            return build(*arguments, **options)  # pyright: ignore[reportArgumentType]

        monkeypatch.setattr(pool_module, "Reranker", slow)
        first = asyncio.create_task(client.post("/rerank", json=BODY | {"model": "b"}))
        await asyncio.sleep(0.05)
        first.cancel()
        assert (await client.post("/rerank", json=BODY | {"model": "b"})).status_code == 200
        assert made == [1]
        assert {served.spec.name: served.users for served in handler.pool} == {"a": 0, "b": 0, "c": 0}
