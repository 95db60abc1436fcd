"""Scores that BAAI published for its rerankers, wherever the real checkpoints are in the Hugging Face cache.

Source: the model cards of BAAI/bge-reranker-base, -large and -v2-m3, and the README of FlagEmbedding.
"""

import numpy as np
import pytest

from mlx_rerank import FlagReranker, Reranker
from mlx_rerank.errors import CheckpointNotFoundError
from mlx_rerank.hub import resolve
from mlx_rerank.reference import ReferenceReranker

PANDA = "what is panda?"
GIANT = (
    "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is a bear species "
    "endemic to China."
)
FRANCE, CHINA = "What is the capital of France?", "What is the population of China?"
PARIS, BILLION = "Paris is the capital of France.", "The population of China is over 1.4 billion people."

PUBLISHED = {
    "BAAI/bge-reranker-base": {
        ("query", "passage"): 0.4474879801273346,
        (PANDA, "hi"): -8.15439224243164,
        (PANDA, GIANT): 6.182111740112305,
        (FRANCE, PARIS): 6.15733337,
        (FRANCE, "Berlin is the capital of Germany."): -3.65939403,
    },
    "BAAI/bge-reranker-large": {
        ("query", "passage"): -1.5263671875,
        (PANDA, "hi"): -5.60546875,
        (PANDA, GIANT): 5.76171875,
        (FRANCE, PARIS): 7.984375,
        (FRANCE, BILLION): -6.84375,
        (CHINA, PARIS): -7.15234375,
        (CHINA, BILLION): 5.44921875,
    },
    "BAAI/bge-reranker-v2-m3": {
        ("query", "passage"): -5.65234375,
        (PANDA, "hi"): -8.1875,
        (PANDA, GIANT): 5.26171875,
    },
}

pytestmark = [pytest.mark.checkpoint, pytest.mark.parametrize("model", PUBLISHED)]


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
    pairs = [["query", "passage"], [PANDA, "hi"], [PANDA, GIANT]]
    found = FlagReranker(cached(model), use_fp16=True).compute_score(pairs, normalize=True)
    np.testing.assert_allclose(found, [0.003497010252573502, 0.00027803096387751553, 0.9948403768236574], rtol=0.02)


def test_reference_logits(model: str) -> None:
    from pathlib import Path

    directory = Path(cached(model))
    pairs = list(PUBLISHED[model])
    found = Reranker(directory, dtype="float32").logits(pairs).logits
    np.testing.assert_allclose(found, ReferenceReranker(directory).logits(pairs).logits, atol=1e-4, rtol=0)
