"""GELU and attention made of sums and products are those of PyTorch, and never turn NaN into a number."""

import math
from types import ModuleType

import bounds
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlx_rerank.device import operations
from mlx_rerank.models.layers import Linear, some_outputs

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.skipif(mx.default_device() != mx.cpu, reason="these are the CPU's forms"),
]
NANS = np.array([0x7FC00000, 0xFFC00000, 0x7FC001FF, 0x7F800001, 0xFFFFFFFF], dtype=np.uint32).view(np.float32)


def test_gelu(torch: ModuleType) -> None:
    x = np.concatenate([np.linspace(-12, 12, 100_001), np.geomspace(1e-30, 1e30, 500), -np.geomspace(1e-30, 1e30, 500)])
    x = x.astype(np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(np.array(operations.gelu(mx.array(x))), expected, rtol=2e-7, atol=5e-7)
    assert np.isnan(np.array(operations.gelu(mx.array(NANS)))).all()


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_gelu_in_half_precision_is_rounded_once(dtype: mx.Dtype) -> None:
    x = mx.linspace(-8, 8, 4001).astype(dtype)
    wide = np.array(operations.gelu(x.astype(mx.float32)))
    found = operations.gelu(x)
    assert found.dtype == dtype
    step = {mx.float16: 2**-11, mx.bfloat16: 2**-8}[dtype]
    np.testing.assert_allclose(np.array(found.astype(mx.float32)), wide, rtol=step * 1.01, atol=1e-6)


@pytest.mark.parametrize(("dtype", "step"), [(mx.float32, 2**-24), (mx.float16, 2**-11), (mx.bfloat16, 2**-8)], ids=str)
def test_the_gradient_of_gelu_is_rounded_once(dtype: mx.Dtype, step: float, torch: ModuleType) -> None:
    rng = np.random.default_rng(5)
    x, weights = (mx.array(rng.normal(0, scale, 4001)).astype(dtype) for scale in (3, 1))
    with operations.differentiable():
        found = mx.grad(lambda x: (operations.gelu(x) * weights).astype(mx.float32).sum())(x)
    assert found.dtype == dtype
    exact = torch.tensor(np.array(x.astype(mx.float32)), dtype=torch.float64, requires_grad=True)
    given = torch.tensor(np.array(weights.astype(mx.float32)), dtype=torch.float64)
    (torch.nn.functional.gelu(exact) * given).sum().backward()
    assert exact.grad is not None
    # Phi and x phi(x), each below 1.1, are off by some steps of float32.
    np.testing.assert_allclose(np.array(found.astype(mx.float32)), exact.grad.numpy(), rtol=1.01 * step, atol=4e-6)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16], ids=str)
def test_gelu_keeps_its_input_alone_for_the_gradient(dtype: mx.Dtype) -> None:
    x = mx.random.normal((1 << 18,)).astype(dtype)
    mx.eval(x)

    def held(layers: int) -> float:
        """Return the most that so many layers hold at once, as a multiple of x."""

        def loss(x: mx.array) -> mx.array:
            for _ in range(layers):
                x = operations.gelu(x)
            return x.astype(mx.float32).sum()

        mx.reset_peak_memory()
        before = mx.get_active_memory()
        with operations.differentiable():
            mx.eval(mx.grad(loss)(x))
        return (mx.get_peak_memory() - before) / x.nbytes

    assert held(60) - held(20) < 1.2 * 40


def test_the_gpus_gelu_is_the_same_function(monkeypatch: pytest.MonkeyPatch) -> None:
    x = mx.linspace(-8, 8, 4001)
    here = operations.gelu(x)
    monkeypatch.setattr(operations, "_on_cpu", lambda: False)
    monkeypatch.setattr(operations, "_gelu_in_one_kernel", operations._exact_gelu)  # which would start a compiler
    np.testing.assert_allclose(np.array(operations.gelu(x)), np.array(here), atol=1e-6)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_layer_norm(torch: ModuleType, scale: float, biased: bool) -> None:
    rng = np.random.default_rng(7)
    x, weight, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 5, 96), 96, 96))
    x = scale * x + 5 * scale  # a mean that is large beside the deviation
    bias = bias * biased
    found = np.array(operations.layer_norm(mx.array(x), mx.array(weight), mx.array(bias) if biased else None, 1e-5))
    wide = (torch.from_numpy(array.astype(np.float64)) for array in (weight, bias))
    expected = torch.nn.functional.layer_norm(torch.from_numpy(x.astype(np.float64)), (96,), *wide, 1e-5).numpy()
    # The mean is a sum of 96 numbers of about 5 deviations, and what it is off by is divided by the deviation; as much
    # again, of numbers of one deviation, for the variance.
    most = (5 + 1) * bounds.of_sum(96) * np.abs(weight).max() + bounds.rounded(4, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=most)


@pytest.mark.parametrize("biased", [True, False])
def test_linear(biased: bool) -> None:
    rng = np.random.default_rng(7)
    x, weight, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 5, 96), (32, 96), 32))
    found = np.array(operations.linear(mx.array(x), mx.array(weight), mx.array(bias) if biased else None))
    expected = x.astype(np.float64) @ weight.T + bias * biased
    assert (np.abs(found - expected) <= bounds.product(x, weight.T) + bounds.rounded(1, np.abs(expected))).all()


shapes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 40), st.sampled_from([4, 8, 32]))


@settings(deadline=None, max_examples=60)
@given(shape=shapes, seed=st.integers(0, 99), spread=st.sampled_from([0.1, 1.0, 30.0]), data=st.data())
def test_attention(
    torch: ModuleType, shape: tuple[int, int, int, int], seed: int, spread: float, data: st.DataObject
) -> None:
    B, _, L, d = shape
    rng = np.random.default_rng(seed)
    q, k, v = (spread * rng.standard_normal(shape).astype(np.float32) for _ in range(3))
    queries = data.draw(st.sampled_from([1, L]))
    lengths = data.draw(st.none() | st.lists(st.integers(1, L), min_size=B, max_size=B))
    mask = None if lengths is None else (np.arange(L) < np.array(lengths)[:, None])[:, None, None]
    block, operations._BLOCK = operations._BLOCK, data.draw(st.sampled_from([1, 100, 1000, 1 << 21]))
    try:
        found = operations.attention(
            mx.array(q)[:, :, :queries], mx.array(k), mx.array(v), d**-0.5,
            None if mask is None else mx.array(mask.tolist()),
        )  # fmt: skip
    finally:
        operations._BLOCK = block
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(torch.from_numpy(array.astype(np.float64)) for array in (q[:, :, :queries], k, v)),
        attn_mask=None if mask is None else torch.from_numpy(mask),
    )
    # A score that is off by s makes its weight off by a share of s, and so its share of the total; 2 ** x is within
    # 5e-7; and the weights' sum and that of the values are rounded.
    scores = np.abs(q[:, :, :queries] @ k.swapaxes(-1, -2)).max() * d**-0.5
    s = bounds.product(q[:, :, :queries], k.swapaxes(-1, -2)).max() * d**-0.5 + bounds.rounded(4, scores)
    most = 2 * (s + 5e-7 + bounds.of_sum(L)) * np.abs(v).max()
    np.testing.assert_allclose(np.array(found), expected.numpy(), rtol=0, atol=most)


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    q, k = mx.array([[[[1.0]]]]), mx.array([[[[-1e30], [0.0], [500.0], [1e30]]]])
    found = operations.attention(q, k, mx.array([[[[1.0], [2.0], [3.0], [4.0]]]]), 1.0, None)
    assert np.array(found).tolist() == [[[[4.0]]]]


@settings(deadline=None)
@given(arrays(np.float32, (1, 2, 3, 4), elements=st.floats(-5, 5, width=32)), st.sampled_from(range(5)), st.booleans())
def test_no_nan_becomes_a_number(values: np.ndarray, which: int, in_query: bool) -> None:
    broken = values.copy()
    broken[0, 1, 2, 3] = NANS[which]
    q, k = (broken, values) if in_query else (values, broken)
    found = np.array(operations.attention(mx.array(q), mx.array(k), mx.array(values), 0.5, None))
    assert np.isnan(found[0, 1]).any(axis=-1)[2 if in_query else slice(None)].all()
    assert np.isfinite(found[0, 0]).all()


@pytest.mark.parametrize("infinity", [math.inf, -math.inf])
def test_infinite_scores_give_nan(infinity: float) -> None:
    found = operations.attention(mx.array([[[[infinity]]]]), mx.ones((1, 1, 2, 1)), mx.ones((1, 1, 2, 1)), 1.0, None)
    assert np.isnan(np.array(found)).all()


def opened(linear: nn.QuantizedLinear) -> mx.array:
    """Return the weight of a packed map."""
    packing = {"group_size": linear.group_size, "bits": linear.bits, "mode": linear.mode}
    return mx.dequantize(linear.weight, linear.scales, linear.get("biases"), **packing, dtype=mx.float32)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("mode", [None, "affine", "mxfp4", "mxfp8", "nvfp4"])
def test_some_outputs_of_a_linear_are_those_of_the_whole(mode: str | None, biased: bool) -> None:
    mx.random.seed(7)
    linear: Linear | nn.QuantizedLinear = Linear(64, 96, bias=biased)
    x = mx.random.normal((2, 5, 64))
    if mode is not None:
        linear = nn.QuantizedLinear.from_linear(linear, mode=mode)
    whole, found = np.array(linear(x)), np.array(some_outputs(linear, x, slice(32, 96)))
    weight = linear.weight if isinstance(linear, Linear) else opened(linear)
    most = 2 * bounds.product(np.array(x), np.array(weight).T) + bounds.rounded(2, np.abs(whole))
    assert (np.abs(found - whole[..., 32:]) <= most[..., 32:]).all()


def test_sums_and_products_are_for_float32_without_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX's own kernels are slower for float32 on a CPU, and the only ones that round half precision once."""
    seen, fused = [], mx.fast.layer_norm
    monkeypatch.setattr(mx.fast, "layer_norm", lambda x, *rest: (seen.append(x.dtype), fused(x, *rest))[1])
    for dtype in (mx.float32, mx.float16, mx.bfloat16):
        x = mx.ones((2, 8), dtype)
        operations.layer_norm(x, x[0], x[0], 1e-5)
    assert seen == [mx.float16, mx.bfloat16]
    with operations.differentiable():
        operations.layer_norm(mx.ones((2, 8)), mx.ones(8), mx.ones(8), 1e-5)
    assert seen[2:] == [mx.float32]


def test_another_threads_device_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX has one default device for all threads of a process, and any of them may change it."""
    rng, stream, seen = np.random.default_rng(3), mx.new_stream(mx.cpu), []
    x, weight, q = (mx.array(rng.standard_normal(shape)).astype(mx.float16) for shape in ((4, 8), (8, 8), (1, 2, 4, 8)))
    wide = x.astype(mx.float32)
    expected = operations._by_sums_and_products(wide)
    addmm, fused, matmul = mx.addmm, mx.fast.scaled_dot_product_attention, mx.matmul
    for place, name, function in ((mx, "addmm", addmm), (mx, "matmul", matmul), (mx.fast, fused.__name__, fused)):
        note = lambda *a, _f=function, **k: (seen.append(k["stream"]), _f(*a, **k))[1]  # noqa: E731
        monkeypatch.setattr(place, name, note)
    with operations.on(stream):
        monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))  # as another thread's mx.stream would
        assert operations._by_sums_and_products(wide) == expected
        mx.eval(operations.linear(x, weight, weight[0]), operations.attention(q, q, q, 1.0, None))
        mx.eval(operations.linear(wide, wide[:, :8].T @ wide, wide[0]))
        with operations.differentiable():
            mx.eval(operations.attention(q, q, q, 1.0, None))
    assert seen == [stream] * 5


@pytest.mark.parametrize(("theta", "scale"), [(1e4, 1.0), (1.6e5, 0.9)])
def test_rope_turns_halves_by_places(theta: float, scale: float) -> None:
    x = np.random.default_rng(4).normal(size=(2, 3, 700, 16))
    angles = scale * np.arange(700)[:, None] * theta ** -(np.arange(0, 16, 2) / 16)
    turns = np.exp(1j * angles) * (x[..., :8] + 1j * x[..., 8:])  # half and half as one complex number each
    expected, largest = np.concatenate([turns.real, turns.imag], axis=-1), np.abs(x).max()
    for dtype, name in ((mx.float32, "float32"), (mx.float16, "float16"), (mx.bfloat16, "bfloat16")):
        found = operations.rope(mx.array(x).astype(dtype), theta, scale=scale)
        assert found.dtype == dtype
        # An angle is off by its own roundings in float32; then x, cosine, sine, products and sum are rounded.
        bound = largest * math.sqrt(2) * (8 * 700 * bounds.UNIT["float32"] + 5 * bounds.UNIT[name])
        np.testing.assert_allclose(np.array(found.astype(mx.float32)), expected, atol=bound, rtol=0)


def test_rope_has_a_derivative() -> None:
    x = mx.random.normal((1, 2, 50, 8))
    with operations.differentiable():
        gradient = mx.grad(lambda x: (operations.rope(x, 1e4, scale=0.5) ** 2).sum())(x)
    np.testing.assert_allclose(np.array(gradient), 2 * np.array(x), atol=1e-5)  # turning changes no length
