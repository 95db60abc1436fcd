"""The MLX path against the PyTorch reference: same logits, same truncation, same order."""

import json
from pathlib import Path

import bounds
import numpy as np
import pytest
from texts import LONG, PAIRS

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.hub import EMBEDDED
from mlx_rerank.proof.reference import ReferenceReranker
from mlx_rerank.scoring.results import PairLogits

pytestmark = pytest.mark.numeric

# Both texts far beyond what fits: longer ones show no more, and what is cut off of both is paired piece by piece there.
HARD = [(LONG[:3000], LONG[:3000]) if pair == (LONG, LONG) else pair for pair in PAIRS]
PASSAGES = Path(__file__).parents[2] / "examples" / "passages.jsonl"
Demo = tuple[list[tuple[str, str]], np.ndarray]
QUESTIONS = ["How does a vaccine protect against disease?", "熊猫吃什么？"]


@pytest.fixture(scope="module")
def reference(mini_directory: Path) -> ReferenceReranker:
    return ReferenceReranker(mini_directory)


@pytest.fixture(scope="module")
def expected(reference: ReferenceReranker) -> PairLogits:
    """Of the hard pairs."""
    return reference.logits(HARD)


@pytest.fixture(scope="module")
def unpacked() -> ReferenceReranker:
    """Of the embedded model as it is: bits unpacked in numpy, not by MLX, as the directory's were."""
    return ReferenceReranker(EMBEDDED["mini"])


@pytest.fixture(scope="module")
def third_of_demo(reference: ReferenceReranker, demo_pairs: list[tuple[str, str]]) -> Demo:
    """Every third passage beside each question, and their logits: half precision is slow on a CPU."""
    pairs = demo_pairs[::3]
    return pairs, reference.logits(pairs).logits


@pytest.fixture(scope="module")
def demo_pairs() -> list[tuple[str, str]]:
    passages = [json.loads(line)["text"] for line in PASSAGES.read_text(encoding="utf-8").splitlines()]
    return [(question, passage) for question in QUESTIONS for passage in passages]


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float, what: str) -> None:
    """Print the largest difference, which pytest -rP shows, and hold it to the tolerance."""
    difference = float(np.abs(found - expected).max())
    print(f"{what}: max |delta logit| {difference:.1e} over {len(found)} pairs")
    assert difference <= tolerance


def test_trained_weights_in_float32(mini_directory: Path, expected: PairLogits) -> None:
    found = Reranker(mini_directory, device="cpu").logits(HARD)
    assert_close(found.logits, expected.logits, 1e-4, "trained weights, float32")
    np.testing.assert_array_equal(found.truncated_tokens, expected.truncated_tokens)
    assert found.truncated_tokens.max() > 10_000  # the long document and query were cut, and it was counted


@pytest.mark.one_kernel
def test_base_shape_in_float32(base_directory: Path) -> None:
    pairs = [PAIRS[i] for i in (0, 6, 9, 14)]  # one of them fills all positions
    found = Reranker(base_directory, device="cpu").logits(pairs).logits
    expected = ReferenceReranker(base_directory).logits(pairs).logits
    assert expected.std() > 0.1  # scores that are all alike would agree whatever the model did
    assert_close(found, expected, 1e-4, "base shape, float32")


@pytest.mark.one_kernel
def test_embedded_model_unpacks_to_the_same_logits(
    mini: Reranker, unpacked: ReferenceReranker, expected: PairLogits
) -> None:
    some = [0, 1, 6, 7, 9, 13, 16]  # in batches of two, one of them among the longest
    found = unpacked.logits([HARD[i] for i in some], batch_size=2).logits
    assert_close(found, expected.logits[some], 1e-4, "embedded model in batches of two")
    several = [i for i in range(len(HARD)) if i not in (13, 15)]  # of those cut to 512 tokens, two
    found = mini.logits([HARD[i] for i in several]).logits
    assert_close(found, expected.logits[several], 1e-4, "embedded model, float32")


@pytest.mark.one_kernel
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-2), ("bfloat16", 0.25)])
def test_half_precision_keeps_the_order(
    mini_directory: Path, third_of_demo: Demo, dtype: str, tolerance: float
) -> None:
    pairs, expected = third_of_demo
    found = Reranker(mini_directory, dtype=dtype, device="cpu").logits(pairs).logits
    assert_close(found, expected, tolerance, dtype)
    for found_row, row in zip(found.reshape(len(QUESTIONS), -1), expected.reshape(len(QUESTIONS), -1), strict=True):
        order = found_row[np.argsort(-row)]
        # Documents may trade places only where float32 itself holds them closer than the tolerance.
        assert np.all(order[:-1] - order[1:] >= -2 * tolerance)


@pytest.mark.one_kernel
def test_a_thousand_pairs_and_one(mini_directory: Path, reference: ReferenceReranker) -> None:
    pairs = [("panda", str(i)) for i in range(1000)]  # the number is what counts, and a token is enough to differ
    reranker = Reranker(mini_directory, device="cpu")
    together = reranker.score(pairs, raw_scores=True)
    expected = reference.logits(pairs[::25], batch_size=64).logits
    assert_close(together[::25], expected, 1e-4, "some of a thousand pairs, float32")
    assert reranker.score(*pairs[0], raw_scores=True) == pytest.approx(float(together[0]), abs=1e-5)


@pytest.mark.one_kernel
def test_reference_ranks_as_the_reranker_does(
    mini: Reranker, unpacked: ReferenceReranker, demo_pairs: list[tuple[str, str]]
) -> None:
    documents = [document for _, document in demo_pairs[:18]]
    expected = unpacked.rank(QUESTIONS[0], documents, top_n=5)
    found = mini.rank(QUESTIONS[0], documents, top_n=5)
    bounds.apart([result.score for result in expected], logit=1e-4)
    assert [result.index for result in found] == [result.index for result in expected]
    assert [result.score for result in found] == pytest.approx([result.score for result in expected], abs=1e-4)
