"""Windows of attention: what they show, and what they cost."""

import bounds
import mlx.core as mx
import numpy as np
import pytest

from mlx_rerank.device.operations import differentiable
from mlx_rerank.models.windows import Window

pytestmark = pytest.mark.numeric

PAIRS, HEADS, SIZE = 3, 2, 8


def batch(length: int) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """Return query, key and value of three pairs, and which tokens are real: all, one, and some."""
    q, k, v = (mx.random.normal((PAIRS, HEADS, length, SIZE), key=mx.random.key(seed)) for seed in range(3))
    return q, k, v, mx.arange(length) < mx.array([[length], [1], [max(1, length // 3)]])


def expected(q: mx.array, k: mx.array, v: mx.array, reach: int, real: mx.array | None) -> np.ndarray:
    """Return the same with a mask of [L, L], in float64."""
    length = q.shape[2]
    places = np.arange(length)
    apart = np.abs(places[:, None] - places)
    seen = np.broadcast_to(apart <= reach, (PAIRS, length, length))
    if real is not None:
        seen = seen & np.array(real)[:, None, :] | (apart == 0)
    query, key, value = (np.array(part, np.float64) for part in (q, k, v))
    scores = np.where(seen[:, None], query @ key.swapaxes(-1, -2), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ value


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("reach", [0, 4])
@pytest.mark.parametrize("length", [1, 9, 16, 17, 20, 33])
def test_a_window_shows_what_a_whole_mask_would(length: int, reach: int, padded: bool) -> None:
    q, k, v, real = batch(length)
    window = Window.of(reach, PAIRS, length, real if padded else None)
    right = expected(q, k, v, reach, window.real)
    # A score is a sum of so many products, and its error goes into the exponent of each weight.
    largest = float(mx.abs(q).max() * mx.abs(k).max()) * SIZE
    most = 4 * (bounds.of_sum(SIZE) * largest + bounds.of_sum(2 * reach + 1) + 1e-6) * float(mx.abs(v).max())
    np.testing.assert_allclose(np.array(window.attend(q, k, v, 1.0)), right, rtol=0, atol=most)
    first = window.attend(q[:, :, :1], k, v, 1.0)
    np.testing.assert_allclose(np.array(first), right[:, :, :1], rtol=0, atol=most)


def test_a_mask_grows_with_the_length_and_not_with_its_square() -> None:
    sizes = [Window.of(64, 1, length, None).visible.size for length in (1024, 2048, 8192)]
    assert sizes == [3 * 64 * length for length in (1024, 2048, 8192)]


def test_a_window_has_derivatives() -> None:
    q, k, v, real = batch(17)
    window = Window.of(4, PAIRS, 17, real)
    with differentiable():
        slopes = mx.grad(lambda k: window.attend(q, k, v, 1.0)[:, :, :6].sum())(k)
    assert mx.isfinite(slopes).all()
    assert mx.abs(slopes[0, :, :9]).max() > 0
    assert mx.abs(slopes[0, :, 10:]).max() == 0  # the sixth token sees no further than the tenth
