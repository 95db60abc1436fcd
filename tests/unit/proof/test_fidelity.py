"""Distances between logits, and between the rankings that they make."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_rerank.proof.fidelity import compare, kendall_tau

LOGITS = st.lists(st.floats(-20, 20), min_size=2, max_size=30, unique=True)


@settings(deadline=None)  # the first comparison imports scipy
@given(LOGITS)
def test_equal_logits_agree_in_everything(logits: list[float]) -> None:
    values = np.array(logits, dtype=np.float32)
    found = compare(values, values, ["query"] * len(values))
    assert found.max_logit == found.mean_logit == found.max_score == 0
    assert found.tau is None or found.tau == pytest.approx(1)
    assert found.top10_overlap in ((1.0,) if len(values) > 10 else (None,))


def test_known_distances() -> None:
    expected = np.array([0.0, 1.0, 2.0, 3.0])
    found = np.array([0.5, 1.0, 3.0, 2.0])  # the last two change places
    fidelity = compare(found, expected, ["a"] * 4)
    assert (fidelity.max_logit, fidelity.mean_logit, fidelity.pairs) == (1.0, 0.625, 4)
    assert fidelity.max_score == pytest.approx(1 / (1 + np.exp(-0.5)) - 0.5)
    assert fidelity.tau == fidelity.lowest_tau == pytest.approx((5 - 1) / 6)


def test_queries_are_ranked_apart() -> None:
    expected = np.array([0.0, 10.0, 1.0, 11.0])
    found = np.array([0.0, 10.0, 11.0, 1.0])
    fidelity = compare(found, expected, ["a", "a", "b", "b"])
    assert (fidelity.tau, fidelity.lowest_tau) == (0.0, -1.0)
    assert compare(found, expected, ["a", "b", "c", "d"]).tau is None


def test_overlap_counts_the_best_ten() -> None:
    expected = np.arange(20.0)
    found = expected.copy()
    found[[19, 5]] = found[[5, 19]]
    assert compare(found, expected, ["a"] * 20).top10_overlap == 0.9


def test_a_ranking_without_order_agrees_with_none() -> None:
    assert kendall_tau(np.zeros(3), np.arange(3.0)) == 0.0
