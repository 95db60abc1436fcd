"""A pair's logit does not depend on what is scored beside it: nearly in float32, exactly where that is asked for.

Measured on the CPU backend. In half precision its products are summed one by one, in the same order for every shape.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import PAIRS

from mlx_rerank import Reranker
from mlx_rerank.pairs.batching import pad
from mlx_rerank.pairs.limits import Limits

pytestmark = pytest.mark.numeric

BOUND = {"float32": 1e-5, "float16": 8e-3, "bfloat16": 6e-2}  # |delta logit|; in halves, two units in the last place
SHORT = [pair for pair in PAIRS if sum(map(len, pair)) < 200]
COMPANY = st.lists(st.sampled_from(range(len(SHORT))), min_size=1, max_size=30)
BUDGET = st.sampled_from([16, 64, 256, 1024, 4096])


def alone(reranker: Reranker) -> np.ndarray:
    return np.array([reranker.logits([pair]).logits[0] for pair in SHORT])


@pytest.fixture(scope="module")
def expected(mini: Reranker) -> np.ndarray:
    return alone(mini)


@settings(deadline=None, max_examples=15)
@given(company=COMPANY, budget=BUDGET)
def test_in_any_company_and_order(mini: Reranker, expected: np.ndarray, company: list[int], budget: int) -> None:
    mini.model.token_budget, usual = budget, mini.token_budget
    found = mini.logits([SHORT[i] for i in company]).logits
    mini.model.token_budget = usual
    assert np.abs(found - expected[company]).max() <= BOUND["float32"]


@pytest.mark.one_kernel
def test_beside_the_longest_pairs(mini: Reranker) -> None:
    pairs = [*PAIRS[:15], *PAIRS[16:21]]  # with two of the four that fill all positions
    found = mini.logits(pairs).logits
    single = np.array([mini.logits([pair]).logits[0] for pair in pairs])
    difference = float(np.abs(found - single).max())
    print(f"largest |delta logit| between a pair alone and among {len(pairs)}: {difference:.1e}")
    assert difference <= BOUND["float32"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(tiny: Path, dtype: str) -> None:
    reranker = Reranker(tiny, dtype=dtype, device="cpu")
    assert np.abs(reranker.logits(SHORT).logits - alone(reranker)).max() <= BOUND[dtype]


def test_padding_changes_no_more_than_company_does(mini: Reranker, expected: np.ndarray) -> None:
    longest = "panda " * 100
    batch = [("what is panda?", longest), *SHORT[:2]]
    rows = mini.encoder.encode(batch, Limits(mini.max_length))
    padded = pad([rows.sequences[i] for i in rows.inverse], mini.config.pad_token_id)
    assert padded.attention_mask is not None
    found = next(mini.engine.run([[padded]]))[1:]
    assert np.abs(found - expected[:2]).max() <= BOUND["float32"]


@settings(deadline=None, max_examples=15)
@given(company=COMPANY, budget=BUDGET)
def test_deterministic_scores_are_the_same_bit_for_bit(exact: Reranker, company: list[int], budget: int) -> None:
    exact.model.token_budget = budget
    found = exact.logits([SHORT[i] for i in company]).logits
    np.testing.assert_array_equal(found, alone(exact)[company])


@pytest.fixture(scope="module")
def exact(tiny: Path) -> Reranker:
    return Reranker(tiny, device="cpu", deterministic=True)


@pytest.mark.embedded
def test_deterministic_on_trained_weights() -> None:
    reranker = Reranker("mini", device="cpu", deterministic=True)
    np.testing.assert_array_equal(reranker.logits(SHORT[::-1] * 2).logits[: len(SHORT)][::-1], alone(reranker))
