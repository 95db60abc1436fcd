"""The operations of decoders are those of PyTorch, on a CPU in float32 and as MLX has them."""

from contextlib import nullcontext
from types import ModuleType

import bounds
import mlx.core as mx
import numpy as np
import pytest

from mlx_rerank.device import causal, operations

pytestmark = pytest.mark.numeric
WAYS = {"own": nullcontext, "MLX's": operations.differentiable}
RNG = np.random.default_rng(11)


@pytest.mark.parametrize("way", WAYS)
def test_rms_norm(way: str, torch: ModuleType) -> None:
    x, weight = RNG.standard_normal((3, 5, 96), np.float32) + 2, RNG.standard_normal(96, np.float32)
    with WAYS[way]():
        found = np.array(operations.rms_norm(mx.array(x), mx.array(weight), 1e-6))
    wide = (torch.from_numpy(array.astype(np.float64)) for array in (x, weight))
    expected = torch.nn.functional.rms_norm(next(wide), (96,), next(wide), 1e-6).numpy()
    np.testing.assert_allclose(found, expected, rtol=bounds.of_sum(96) + bounds.rounded(5, 1.0))


@pytest.mark.parametrize("way", WAYS)
def test_swiglu(way: str, torch: ModuleType) -> None:
    gate = np.concatenate([np.linspace(-20, 20, 4001), [-1e4, 1e4, 0]]).astype(np.float32)
    up = RNG.standard_normal(gate.shape, np.float32)
    with WAYS[way]():
        found = np.array(operations.swiglu(mx.array(gate), mx.array(up)))
    wide = torch.from_numpy(gate.astype(np.float64))
    expected = torch.nn.functional.silu(wide).numpy() * up
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-30)  # 2 ** x is within 5e-7, its exponent rounded
    assert np.isnan(np.array(operations.swiglu(mx.array([np.nan]), mx.array([1.0])))).all()


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_swiglu_in_half_precision_is_rounded_once(dtype: mx.Dtype) -> None:
    gate, up = mx.linspace(-8, 8, 4001).astype(dtype), mx.linspace(3, -1, 4001).astype(dtype)
    found = operations.swiglu(gate, up)
    wide = np.array(operations.swiglu(gate.astype(mx.float32), up.astype(mx.float32)))
    step = {mx.float16: 2**-11, mx.bfloat16: 2**-8}[dtype]
    np.testing.assert_allclose(np.array(found.astype(mx.float32)), wide, rtol=step * 1.01, atol=1e-6)


def test_rope_turns_halves_from_each_rows_position_on() -> None:
    x, offsets = RNG.standard_normal((2, 3, 4, 8), np.float32), np.array([0, 30])
    angles = (offsets[:, None] + np.arange(4))[..., None] * 1e4 ** (-np.arange(4) / 4)  # [B, L, D/2]
    cos, sin, (a, b) = np.cos(angles)[:, None], np.sin(angles)[:, None], np.split(x, 2, axis=-1)
    expected = np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
    found = np.array(operations.rope(mx.array(x), 1e4, mx.array(offsets.astype(np.int32))))
    # An angle of up to 33 is off by some roundings of it.
    np.testing.assert_allclose(found, expected, rtol=0, atol=bounds.rounded(4, 33 * 2 * np.abs(x).max()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("before", [0, 7])
@pytest.mark.parametrize("queries", [1, 3, 50])
def test_causal_attention(
    way: str, before: int, queries: int, torch: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = RNG.standard_normal((2, 4, queries, 8), np.float32)
    k, v = RNG.standard_normal((2, 2, 2, before + queries, 8), np.float32)
    monkeypatch.setattr(causal, "_BLOCK", 1)  # so that fifty queries are computed in two blocks
    with WAYS[way]():
        found = np.array(causal.causal_attention(mx.array(q), mx.array(k), mx.array(v), 8**-0.5))
    shared = (np.repeat(array, 2, axis=1).astype(np.float64) for array in (k, v))
    shown = np.tril(np.ones((queries, before + queries), bool), before)
    expected = torch.nn.functional.scaled_dot_product_attention(
        *map(torch.from_numpy, (q.astype(np.float64), *shared)), attn_mask=torch.from_numpy(shown)
    ).numpy()
    assert np.abs(found - expected).max() <= _most(q, k, v)


@pytest.mark.parametrize("way", WAYS)
def test_one_query_of_heads_that_share_keys(way: str, torch: ModuleType) -> None:
    q = RNG.standard_normal((2, 4, 1, 8), np.float32)
    k, v = RNG.standard_normal((2, 2, 2, 9, 8), np.float32)
    shown = np.arange(9) < np.array([[9], [4]])
    mask = shown[:, None, None]
    with WAYS[way]():
        found = np.array(operations.attention(mx.array(q), mx.array(k), mx.array(v), 8**-0.5, mx.array(mask.tolist())))
    shared = (np.repeat(array, 2, axis=1).astype(np.float64) for array in (k, v))
    expected = torch.nn.functional.scaled_dot_product_attention(
        *map(torch.from_numpy, (q.astype(np.float64), *shared)), attn_mask=torch.from_numpy(mask)
    ).numpy()
    assert np.abs(found - expected).max() <= _most(q, k, v)


def test_a_score_is_float32_whatever_the_dtype() -> None:
    x, row = (mx.array(RNG.standard_normal(shape)).astype(mx.float16) for shape in ((3, 64), (64,)))
    found = operations.score(x, row)
    states, weights = (np.array(array.astype(mx.float32)) for array in (x, row))
    assert found.dtype == mx.float32
    assert (np.abs(np.array(found) - states.astype(np.float64) @ weights) <= bounds.product(states, weights)).all()


def _most(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> float:
    """Return how far attention may be off: as in test_operations.py."""
    size = np.linalg.norm(q, axis=-1).max() * np.linalg.norm(k, axis=-1).max() * 8**-0.5
    share = (bounds.of_sum(8) + bounds.rounded(4, 1.0)) * size + 5e-7 + bounds.of_sum(k.shape[2])
    return float(2 * share * np.abs(v).max())
