"""The bounds of rounding hold whatever the order of a sum, and nothing that is wrong passes for rounding."""

import math
from pathlib import Path
from typing import Any

import bounds
import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TINY, shape_of

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.device import operations

pytestmark = pytest.mark.numeric
CONFIG = shape_of(TINY)
ROW = [0, 5, 6, 7, 2, 2, 9, 10, 2]


@pytest.mark.parametrize("terms", [1, 3, 64, 3000])
@pytest.mark.parametrize("same_sign", [True, False])
def test_sums_one_by_one_in_any_order(terms: int, same_sign: bool) -> None:
    random = np.random.default_rng(terms)
    for _ in range(20):
        values = random.standard_normal(terms).astype(np.float32)
        values = np.abs(values) if same_sign else values
        one_by_one, exact = values.cumsum(dtype=np.float32)[-1], values.astype(np.float64).sum()
        assert abs(one_by_one - exact) <= bounds.of_sum(terms) * np.abs(values).sum()
        if not same_sign:
            ones = np.ones((terms, 1), np.float32)
            assert abs(one_by_one - exact) <= bounds.product(values[None], ones)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_numbers_rounded_to_half_precision_are_no_rounding_of_float32(dtype: mx.Dtype) -> None:
    random = np.random.default_rng(0)
    x, y = (random.standard_normal(shape).astype(np.float32) for shape in ((8, 768), (768, 8)))
    half = np.array(mx.array(x).astype(dtype).astype(mx.float32))
    exact = x.astype(np.float64) @ y
    assert (np.abs(x @ y - exact) <= bounds.product(x, y)).all()
    assert (np.abs(half @ y - exact) > bounds.product(x, y)).mean() > 0.5


def test_longer_sums_and_deeper_models_are_further_off() -> None:
    deeper = shape_of(TINY | {"num_hidden_layers": 8})
    assert bounds.of_sum(25) < bounds.of_sum(26) < bounds.of_sum(2500) == pytest.approx(10 * bounds.of_sum(25))
    assert bounds.forward(CONFIG, 8) < bounds.forward(CONFIG, 64) < bounds.forward(deeper, 64) < 1e-4
    assert bounds.forward(CONFIG, 8) < bounds.gradient(CONFIG, 8) < 1e-4  # a step of float16 is 5e-4
    assert bounds.forward(CONFIG, 8, "float16") < bounds.forward(CONFIG, 8, "bfloat16")


@pytest.fixture
def model(tiny: Path) -> Any:
    return Checkpoint.open(tiny).load(mx.float32, keep_quantized=False)


def logit(model: Any, ids: list[int], mask: list[bool] | None = None) -> float:
    return float(model(mx.array([ids]), None if mask is None else mx.array([mask]))[0])


def gelu(x: mx.array) -> mx.array:
    """In x's dtype; MLX's own is compiled, for a second of a CPU each."""
    return x * (1 + mx.erf(x / 2**0.5)) / 2


def by_tanh(x: mx.array) -> mx.array:
    """Up to 5e-4 off."""
    return x * (1 + mx.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2


def test_planted_errors_are_larger_than_rounding(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    most = bounds.logits(CONFIG, len(ROW), np.array(model.head.out_proj.weight))
    right = logit(model, ROW)
    assert most < bounds.logits(CONFIG, CONFIG.max_length, np.array(model.head.out_proj.weight)) <= bounds.TINY
    padded = [*ROW, 1]
    assert abs(logit(model, padded, [True] * len(ROW) + [False]) - right) <= bounds.COMPANY < most
    assert abs(logit(model, padded) - right) > 10 * most  # without a mask
    with monkeypatch.context() as planted:
        planted.setattr(operations, "gelu", by_tanh)
        assert abs(logit(model, ROW) - right) > most
    with monkeypatch.context() as planted:
        planted.setattr(operations, "gelu", lambda x: gelu(x.astype(mx.float16)).astype(mx.float32))
        assert abs(logit(model, ROW) - right) > most
    table = model.embeddings.position_embeddings
    table.weight = mx.array(np.roll(np.array(table.weight), -1, axis=0))  # each token in the place of the next
    assert abs(logit(model, ROW) - right) > 10 * most


def test_what_rounding_could_exchange_is_no_ranking() -> None:
    assert bounds.ranking([("a", 0.9), ("b", 0.9), ("c", 0.1)]) == [("a", 0.9 + 1e-6), ("b", 0.9), ("c", 0.1)]
    assert bounds.ranking([("a", 0.9), ("b", 0.1)]) != [("a", 0.9 + 4e-5), ("b", 0.1)]
    assert bounds.ranking([("a", 0.9), ("b", 0.1)], raw=True) == [("a", 0.9 + 8e-6), ("b", 0.1)]
    bounds.apart([0.9999, 3e-5, 2e-5])  # their logits are far apart
    for scores, raw in (([0.5, 0.5 - bounds.SCORE], False), ([0.4, 0.5], False), ([9.0, 9.0 - 1e-5], True)):
        with pytest.raises(AssertionError, match="ranked by chance"):
            bounds.apart(scores, raw=raw)
