"""Scores that BAAI published for its rerankers, wherever the real checkpoints are in the Hugging Face cache."""

import numpy as np
import pytest

from mlx_rerank import FlagReranker, Reranker
from mlx_rerank.checkpoints.hub import resolve
from mlx_rerank.errors import CheckpointNotFoundError
from mlx_rerank.proof.published import PUBLISHED
from mlx_rerank.proof.reference import ReferenceReranker

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.one_kernel,
    pytest.mark.checkpoint,
    pytest.mark.parametrize("model", PUBLISHED),
]


def cached(model: str) -> str:
    """Return the model's directory, or skip the test where it has not been downloaded before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        try:
            return str(resolve(model))
        except CheckpointNotFoundError:
            pytest.skip(f"{model} is not in the Hugging Face cache: download it once to run this test")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_published_scores(model: str, dtype: str) -> None:
    reranker = Reranker(cached(model), dtype=dtype)
    found = reranker.score(list(PUBLISHED[model]), raw_scores=True)
    np.testing.assert_allclose(found, list(PUBLISHED[model].values()), atol=2e-2, rtol=0)


def test_published_scores_through_flagreranker(model: str) -> None:
    found = FlagReranker(cached(model), use_fp16=True).compute_score([list(pair) for pair in PUBLISHED[model]])
    np.testing.assert_allclose(found, list(PUBLISHED[model].values()), atol=2e-2, rtol=0)


def test_published_sigmoids(model: str) -> None:
    if model != "BAAI/bge-reranker-v2-m3":
        pytest.skip("published for v2-m3 alone")
    found = FlagReranker(cached(model), use_fp16=True).compute_score(
        [list(pair) for pair in PUBLISHED[model]], normalize=True
    )
    np.testing.assert_allclose(found, [0.003497010252573502, 0.00027803096387751553, 0.9948403768236574], rtol=0.02)


def test_reference_logits(model: str) -> None:
    from pathlib import Path

    directory = Path(cached(model))
    pairs = list(PUBLISHED[model])
    found = Reranker(directory, dtype="float32").logits(pairs).logits
    np.testing.assert_allclose(found, ReferenceReranker(directory).logits(pairs).logits, atol=1e-4, rtol=0)
