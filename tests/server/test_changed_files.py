"""A model's directory is replaced while the server runs: requests are answered by the old or the new model, whole."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from bodies import BODY, DOCUMENTS
from checkpoints import TINY, random_tensors, tiny_tokenizer, write_checkpoint
from tokenizers import Tokenizer

from mlx_rerank import Reranker
from mlx_rerank.scoring.loaded import ModelOptions
from mlx_rerank.server.served import ModelSpec
from server.conftest import Connect

pytestmark = pytest.mark.anyio


@pytest.fixture
def served(tiny: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny, tmp_path / "served")


def other(directory: Path, **shape: int) -> Path:
    """Write another model, whose vocabulary has another order."""
    tokenizer = tiny_tokenizer().to_str().replace("▁panda", "\0").replace("▁bear", "▁panda").replace("\0", "▁bear")
    config = TINY | shape
    return write_checkpoint(directory, config, random_tensors(config, seed=1), Tokenizer.from_str(tokenizer))


def expected(directory: Path) -> list[float]:
    return Reranker(directory).score([("panda", document) for document in DOCUMENTS]).tolist()


def by_place(body: dict) -> list[float]:
    return [row["relevance_score"] for row in sorted(body["results"], key=lambda row: row["index"])]


@pytest.mark.parametrize("shape", [{}, {"num_hidden_layers": 1}, {"vocab_size": 130}])
async def test_replaced_while_it_was_unloaded(
    connect: Connect, served: Path, tmp_path: Path, shape: dict[str, int]
) -> None:
    new = other(tmp_path / "new", **shape)
    async with connect(specs=[ModelSpec("m", str(served))], keep_alive=0.0) as (client, handler):
        first = await client.post("/rerank", json=BODY)
        np.testing.assert_allclose(by_place(first.json()), expected(served), atol=1e-4)
        await handler.pool.unload_idle()
        for path in new.iterdir():
            path.replace(served / path.name)
        second = await client.post("/rerank", json=BODY)
        np.testing.assert_allclose(by_place(second.json()), expected(served), atol=1e-4)
        assert np.abs(np.subtract(by_place(second.json()), by_place(first.json()))).max() > 0.01


async def test_overwritten_while_its_embeddings_are_mapped(connect: Connect, served: Path, tmp_path: Path) -> None:
    new = other(tmp_path / "new")
    options = ModelOptions(embeddings="mapped")
    async with connect(specs=[ModelSpec("m", str(served))], options=options) as (client, handler):
        await client.post("/rerank", json=BODY)
        before = handler.pool.default.scheduler
        for path in new.iterdir():
            shutil.copyfile(path, served / path.name)
        answer = await client.post("/rerank", json=BODY)
        np.testing.assert_allclose(by_place(answer.json()), expected(served), atol=1e-4)
        assert handler.pool.default.scheduler is not before


async def test_a_request_that_was_read_with_the_old_model_is_refused(
    connect: Connect, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ModelOptions(embeddings="mapped")
    async with connect(specs=[ModelSpec("m", str(served))], options=options) as (client, handler):
        scheduler = handler.pool.default.scheduler
        assert scheduler
        submit = scheduler.submit

        def late(encoded):
            path = served / "model.safetensors"
            path.write_bytes(path.read_bytes())
            return submit(encoded)

        monkeypatch.setattr(scheduler, "submit", late)
        answer = await client.post("/rerank", json=BODY)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "the files of m have changed: it is loaded again" in answer.text
        assert (await client.post("/rerank", json=BODY)).status_code == 200  # the remedy
        scheduler.close()
        monkeypatch.setattr(handler.pool.default, "scheduler", scheduler)
        assert (await client.post("/rerank", json=BODY)).status_code == 503


async def test_a_directory_that_is_gone_and_comes_back(connect: Connect, served: Path, tmp_path: Path) -> None:
    async with connect(specs=[ModelSpec("m", str(served))], keep_alive=0.0) as (client, handler):
        await client.post("/rerank", json=BODY)
        await handler.pool.unload_idle()
        served.rename(tmp_path / "away")
        assert (await client.post("/rerank", json=BODY)).status_code == 503
        (tmp_path / "away").rename(served)
        assert (await client.post("/rerank", json=BODY)).status_code == 200
