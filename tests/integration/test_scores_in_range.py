"""Scores are in 0..1 wherever nobody asks for logits, also of a model whose makers leave them as logits."""

import json
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from commands import run_here

from mlx_rerank import CrossEncoder, FlagReranker, Reranker
from mlx_rerank.models.mapping import sigmoid
from mlx_rerank.server.app import create_app
from mlx_rerank.server.handler import Bounds, Handler
from mlx_rerank.server.pool import Pool
from mlx_rerank.server.served import ModelSpec
from mlx_rerank.server.settings import Settings

QUERY, DOCUMENTS = "what is panda", ["the bear", "a panda", "what"]
PAIRS = [(QUERY, document) for document in DOCUMENTS]
IDENTITY = {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}
CLOSE = {"rtol": 0, "atol": 0.05}  # also in half precision, a GPU's default


@pytest.fixture(scope="module")
def left_as_logits(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = shutil.copytree(tiny, tmp_path_factory.mktemp("identity") / "model")
    config = json.loads((directory / "config.json").read_text()) | IDENTITY
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="module")
def logits(left_as_logits: Path) -> np.ndarray:
    found = Reranker(left_as_logits).logits(PAIRS).logits
    assert (np.abs(found - sigmoid(found)) > 1).all()  # so that none can be taken for the other
    return found


def test_python(left_as_logits: Path, logits: np.ndarray, tmp_path: Path) -> None:
    reranker = Reranker(left_as_logits, score_cache=tmp_path / "scores")
    for _ in range(2):  # the second time all are from the cache
        np.testing.assert_allclose(reranker.score(PAIRS), sigmoid(logits), **CLOSE)
    np.testing.assert_allclose([each.score for each in reranker.score_stream(PAIRS)], sigmoid(logits), **CLOSE)
    ranked = {each.index: each.score for each in reranker.rank(QUERY, DOCUMENTS)}
    np.testing.assert_allclose([ranked[i] for i in range(3)], sigmoid(logits), **CLOSE)
    np.testing.assert_allclose(reranker.explain(QUERY, DOCUMENTS[0]).score, sigmoid(logits[0]), **CLOSE)


def test_faces_do_as_their_originals(left_as_logits: Path, logits: np.ndarray) -> None:
    flag = FlagReranker(str(left_as_logits), max_length=64)
    np.testing.assert_allclose(CrossEncoder(str(left_as_logits)).predict(PAIRS), logits, **CLOSE)
    np.testing.assert_allclose(flag.compute_score(PAIRS), logits, **CLOSE)
    np.testing.assert_allclose(flag.compute_score(PAIRS, normalize=True), sigmoid(logits), **CLOSE)


def test_command_line(left_as_logits: Path, logits: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("".join(f"{query}\t{document}\n" for query, document in PAIRS))
    lines = run_here("score", str(tmp_path / "pairs.tsv"), "--model", str(left_as_logits)).stdout.splitlines()
    np.testing.assert_allclose([json.loads(line)["score"] for line in lines], sigmoid(logits), **CLOSE)
    facts = json.loads(run_here("info", str(left_as_logits), "--json").stdout)
    assert facts["makers_activation"] == "torch.nn.modules.linear.Identity"
    assert facts["scores"].startswith("sigmoid of a logit")


@pytest.mark.anyio
async def test_server(left_as_logits: Path, logits: np.ndarray) -> None:
    handler = Handler(pool := Pool([ModelSpec("left", str(left_as_logits))]), Bounds())
    await pool.start()
    transport = httpx.ASGITransport(create_app(handler, Settings()))
    body, passages = {"query": QUERY, "documents": DOCUMENTS}, [{"text": document} for document in DOCUMENTS]
    routes = [
        ("/v1/rerank", body, "results", "relevance_score"),
        ("/voyage/v1/rerank", body, "data", "relevance_score"),
        ("/tei/rerank", {"query": QUERY, "texts": DOCUMENTS}, None, "score"),
        ("/nvidia/v1/ranking", {"query": {"text": QUERY}, "passages": passages}, "rankings", "logit"),
    ]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for path, sent, under, name in routes:
            answer = (await client.post(path, json=sent)).json()
            rows = sorted(answer[under] if under else answer, key=lambda row: row["index"])
            expected = logits if name == "logit" else sigmoid(logits)
            np.testing.assert_allclose([row[name] for row in rows], expected, **CLOSE)
    await handler.close()
