"""The operations of a transformer, in the form that suits the device.

On a GPU they are MLX's own. Its CPU backend (x86-64, MLX 0.32) adds and multiplies some 3,000 million numbers a second,
but sums up rows and copies at a third of that rate, and takes exp and erf one at a time, some 50 million a second. So
in float32 on a CPU the operations here are made of whole sums and products.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import mlx.core as mx

# 1/2 erfc(a / sqrt(2)) = P(a) ** -16 within 3e-7 / a; the form is that of Abramowitz and Stegun, 7.1.28, fitted anew.
_TAIL = (1.0442748411, 0.0520639779, 0.0221137169, 0.0033705105, 7.5322323e-05, 3.9649195e-05, 6.9880152e-06)
# 2 ** f = (u + f) / (u - f) within 5e-7 of itself, with u = _POWER[0] + _POWER[1] * f * f, for f in -1/2..1/2
_POWER = (2.88540812, 0.11523606)
_TO_INTEGER = 12582912.0  # 1.5 * 2**23: the bits of x + this end with x, rounded
_LEAST = -126.0  # exponent of the smallest normal float32
_HIDDEN = -1e30  # added to the scores of masked tokens
_BLOCK = 1 << 21  # attention scores computed at a time: 8 MB; more, and smaller, blocks gain nothing
_SHORT = 8  # most queries for which a GPU has a fused attention without what its derivative needs (MLX 0.32)
_with_derivatives = ContextVar("with_derivatives", default=False)
_place: ContextVar[mx.Device | mx.Stream | None] = ContextVar("place", default=None)


@contextmanager
def on(place: mx.Device | mx.Stream) -> Iterator[None]:
    """Compute on a device, or on one of its streams, within.

    MLX has one default device for the whole process, and another thread may change it amid our operations. So the
    choice of a form, products with weights that are not packed, and MLX's own attention go by what is noted here.
    """
    token = _place.set(place)
    try:
        with mx.stream(place):
            yield
    finally:
        _place.reset(token)


@contextmanager
def differentiable() -> Iterator[None]:
    """Use MLX's own operations within, on a CPU too: the shifts of bits in `_power_of_two` have no derivative."""
    token = _with_derivatives.set(True)
    try:
        yield
    finally:
        _with_derivatives.reset(token)


def gelu(x: mx.array) -> mx.array:
    """Return x * Phi(x), with the exact normal distribution, in the dtype of x.

    Args:
        x: floating, any shape. Half precision is computed in float32 inside, in one kernel on a GPU: rounding each
            step would more than double the largest error of a logit. Where there are derivatives, x alone is kept.

    Returns:
        As x; in float32 within 1e-6.

    Source: torch.nn.functional.gelu(approximate="none"); tests/unit/device/test_operations.py.
    """
    if _with_derivatives.get():
        return _gelu_that_keeps_x(x)  # pyright: ignore[reportReturnType]
    if not _by_sums_and_products(x):
        return _exact_gelu(x) if _on_cpu() else _gelu_in_one_kernel(x)
    # Phi(x) is 1 - t or t, for the tail t = P(|x|) ** -16 beyond |x|. So x * Phi(x) is x - |x| t, or - |x| t.
    size = mx.abs(x)
    base = _polynomial(_TAIL, size)
    for _ in range(4):
        base = base * base
    return mx.maximum(x, 0.0) - size / base


def linear(x: mx.array, weight: mx.array, bias: mx.array | None) -> mx.array:
    """Return x W^T + b, or x W^T.

    Args:
        x: floating [..., D].
        weight: of the same dtype, [F, D].
        bias: of the same dtype, [F]; None for none.
    """
    if bias is None:
        return mx.matmul(x, weight.T, stream=_place.get())
    if _by_sums_and_products(x, weight, bias):  # addmm begins with a copy of the bias for every row
        return mx.matmul(x, weight.T, stream=_place.get()) + bias
    return mx.addmm(bias, x, weight.T, stream=_place.get())


def layer_norm(x: mx.array, weight: mx.array, bias: mx.array | None, eps: float) -> mx.array:
    """Return x, less its mean and divided by its standard deviation, times weight and plus bias.

    Args:
        x: floating [..., D].
        weight: of the same dtype, [D].
        bias: of the same dtype, [D]; None for none.
        eps: added to the variance.

    Source: mx.fast.layer_norm; tests/unit/device/test_operations.py.
    """
    if not _by_sums_and_products(x, weight):
        return mx.fast.layer_norm(x, weight, bias, eps)
    D = x.shape[-1]
    mean = mx.full((D, 1), 1 / D)  # as a product, in a third of the time of a sum along rows
    centred = x - x @ mean
    scaled = centred * mx.rsqrt((centred * centred) @ mean + eps) * weight
    return scaled if bias is None else scaled + bias


def rms_norm(x: mx.array, weight: mx.array, eps: float) -> mx.array:
    """Return x, divided by the root of its mean square, times weight.

    Args:
        x: floating [..., D].
        weight: of the same dtype, [D].
        eps: added to the mean square.

    Source: mx.fast.rms_norm; tests/unit/device/test_decoding_operations.py.
    """
    if not _by_sums_and_products(x, weight):
        return mx.fast.rms_norm(x, weight, eps)
    D = x.shape[-1]
    return x * mx.rsqrt((x * x) @ mx.full((D, 1), 1 / D) + eps) * weight


def rope(x: mx.array, base: float, offset: int | mx.array = 0, *, scale: float = 1.0) -> mx.array:
    """Return x, turned by its tokens' positions: numbers D/2 apart make a pair, as in transformers.

    Args:
        x: floating [B, H, L, D].
        base: of the wavelengths.
        offset: the first token's position, or int32 [B], that of each row.
        scale: of positions.

    Source: "RoFormer" (Su et al. 2021); tests/unit/device/test_decoding_operations.py.
    """
    place = _place.get()
    return mx.fast.rope(x, x.shape[-1], traditional=False, base=base, scale=scale, offset=offset, stream=place)


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """Return gate * sigmoid(gate) * up, in their dtype; half precision is computed in float32 and rounded once.

    Source: "GLU Variants Improve Transformer" (Shazeer 2020); tests/unit/device/test_decoding_operations.py.
    """
    if _by_sums_and_products(gate, up):
        power = _power_of_two(mx.abs(gate) * -math.log2(math.e))
        return gate * mx.where(gate < 0, power, 1.0) / (1.0 + power) * up
    return _exact_swiglu(gate, up) if _with_derivatives.get() or _on_cpu() else _swiglu_in_one_kernel(gate, up)


def score(x: mx.array, row: mx.array) -> mx.array:
    """Return the product of hidden states [B, D] with a row [D], float32 [B] whatever their dtypes."""
    return (x.astype(mx.float32) * row.astype(mx.float32)).sum(axis=-1)


def attention(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None) -> mx.array:
    """Return softmax(scale * q k^T) v over the tokens that the mask shows.

    Args:
        q: floating [B, H, L, D/H], or fewer tokens than k and v have.
        k: of the same dtype, [B, H, L, D/H]; or [B, H/G, L, D/H], each head of which serves G of q's.
        v: as k.
        scale: of the scores.
        mask: bool [B, 1, 1, L], or one row for each of q's tokens, True where a token is seen, at least one in each
            row; None where all are.

    Returns:
        As q. NaN where a score is not finite.

    Source: mx.fast.scaled_dot_product_attention; tests/unit/device/test_operations.py.
    """
    if q.shape[1] != k.shape[1] and (q.shape[2] <= _SHORT or _by_sums_and_products(q, k, v)):
        # Queries that share keys and values become queries of one head.
        together = q.reshape(q.shape[0], k.shape[1], -1, q.shape[3])
        return attention(together, k, v, scale, mask).reshape(q.shape)
    if _with_derivatives.get() and q.shape[2] <= _SHORT:
        return _whole_attention(q, k, v, scale, mask)
    if not _by_sums_and_products(q, k, v):
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask, stream=_place.get())
    q = q * (scale * math.log2(math.e))  # so that 2 can be the base
    hidden = None if mask is None else mx.where(mask, 0.0, _HIDDEN).swapaxes(-1, -2)
    numbers = q.shape[2] * k.shape[2]
    return _in_blocks(
        q.shape[:2], numbers, lambda b, h: _attend(q[b, h], k[b, h], v[b, h], None if hidden is None else hidden[b])
    )


def _in_blocks(pairs_and_heads: Sequence[int], numbers: int, attend: Callable[[slice, slice], mx.array]) -> mx.array:
    """Return attention that is computed for some pairs, or for some heads of a pair, at a time.

    Args:
        pairs_and_heads: how many there are of both.
        numbers: that a head of a pair holds at a time.
        attend: takes the pairs and the heads, gives their attention.
    """
    B, H = pairs_and_heads
    fit = max(1, _BLOCK // numbers)  # heads, of one pair or of several
    rows, heads = max(1, fit // H), min(fit, H)
    attended = []
    for b in range(0, B, rows):
        blocks = [attend(slice(b, b + rows), slice(h, h + heads)) for h in range(0, H, heads)]
        attended.append(mx.concatenate(blocks, axis=1))
    return mx.concatenate(attended, axis=0)


def _whole_attention(
    q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None, bias: mx.array | None = None
) -> mx.array:
    """Return attention by a softmax that has a derivative on every device; in the dtype of q."""
    scores = mx.matmul(q * scale, k.swapaxes(-1, -2), stream=_place.get())
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = mx.where(mask, scores, mx.array(-mx.inf, scores.dtype))
    return mx.matmul(mx.softmax(scores, axis=-1, precise=True), v, stream=_place.get())


def _attend(q: mx.array, k: mx.array, v: mx.array, bias: mx.array | None) -> mx.array:
    """Return attention by sums and products, with 2 as the base of softmax; float32.

    The scores have a column for each query, because MLX adds and compares whole rows faster than the numbers within a
    row.
    """
    scores = k @ q.swapaxes(-1, -2)
    if bias is not None:
        scores = scores + bias
    highest = scores.max(axis=-2, keepdims=True)
    weights = _power_of_two(scores - highest)
    # The difference is 0, or NaN if a score is not finite: _power_of_two may turn such a score into a number.
    total = mx.ones((1, k.shape[2])) @ weights + (highest - highest)
    return (weights.swapaxes(-1, -2) @ v) / total.swapaxes(-1, -2)


def _power_of_two(x: mx.array) -> mx.array:
    """Return 2 ** x of float32 numbers that are not above 0."""
    x = mx.maximum(x, _LEAST)
    shifted = x + _TO_INTEGER
    rest = x - (shifted - _TO_INTEGER)
    middle = rest * rest * _POWER[1] + _POWER[0]
    power = (middle + rest) / (middle - rest)
    return ((shifted.view(mx.int32) << 23) + power.view(mx.int32)).view(mx.float32)  # adds the integer to the exponent


def _polynomial(coefficients: Sequence[float], x: mx.array) -> mx.array:
    """Return the polynomial with these coefficients, the constant first."""
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * x + coefficient
    return value


def _exact_gelu(x: mx.array) -> mx.array:
    """Return GELU by the error function, computed in float32."""
    wide = x.astype(mx.float32)
    return (0.5 * wide * (1 + mx.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


def _gelu_gradient(x: mx.array, gradient: mx.array) -> mx.array:
    """Return GELU's derivative times a gradient, computed in float32: Phi(x) + x phi(x)."""
    wide = x.astype(mx.float32)
    density = mx.exp(-0.5 * wide * wide) * (1 / math.sqrt(2 * math.pi))
    slope = 0.5 * (1 + mx.erf(wide * math.sqrt(0.5))) + wide * density
    return (slope * gradient.astype(mx.float32)).astype(x.dtype)


def _exact_swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """Return SwiGLU, computed in float32."""
    wide = gate.astype(mx.float32)
    return (wide * mx.sigmoid(wide) * up.astype(mx.float32)).astype(gate.dtype)


_swiglu_in_one_kernel = partial(mx.compile, shapeless=True)(_exact_swiglu)
_gelu_in_one_kernel = partial(mx.compile, shapeless=True)(_exact_gelu)  # not on a CPU, where that starts a C++ compiler
_gradient_in_one_kernel = partial(mx.compile, shapeless=True)(_gelu_gradient)


@mx.custom_function
def _gelu_that_keeps_x(x: mx.array) -> mx.array:
    """Return GELU. MLX would keep several float32 arrays for its derivative, with compiled functions as well."""
    return _exact_gelu(x) if _on_cpu() else _gelu_in_one_kernel(x)


@_gelu_that_keeps_x.vjp
def _(x: mx.array, gradient: mx.array, _: mx.array) -> mx.array:
    return _gelu_gradient(x, gradient) if _on_cpu() else _gradient_in_one_kernel(x, gradient)


def _by_sums_and_products(*arrays: mx.array) -> bool:
    """Tell whether to compute in the CPU's way."""
    return _on_cpu() and not _with_derivatives.get() and all(array.dtype == mx.float32 for array in arrays)


def _on_cpu() -> bool:
    """Tell whether the arrays being made are for a CPU."""
    place = _place.get() or mx.default_device()
    return (place.device if isinstance(place, mx.Stream) else place) == mx.cpu
