"""Attention to distances, against products gathered one by one in float64."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_rerank.device import operations
from mlx_rerank.device.disentangled import disentangled_attention


def gathered(q: np.ndarray, k: np.ndarray, v: np.ndarray, places: tuple[np.ndarray, np.ndarray], shown: np.ndarray):
    """Return softmax(q k^T + c2p + p2c) v, with the row of each distance looked up by its definition."""
    keys, queries = places
    n, L = q.shape[2], k.shape[2]
    scores = q @ k.swapaxes(-1, -2)
    for i in range(n):
        for j in range(L):
            scores[:, :, i, j] += (q[:, :, i] * keys[:, n - 1 - (i - j)]).sum(-1)
            scores[:, :, i, j] += (k[:, :, j] * queries[:, (i - j) + L - 1]).sum(-1)
    weights = np.exp(scores - scores.max(-1, keepdims=True)) * shown[:, None, None]
    return weights / weights.sum(-1, keepdims=True) @ v


@pytest.mark.parametrize("block", [1, 500, 1 << 21])  # a head of a pair at a time, some heads, all
@pytest.mark.parametrize(("n", "L"), [(7, 7), (1, 7), (1, 1), (2, 3)])
@pytest.mark.parametrize("derivatives", [False, True])
def test_attention_to_distances_is_what_its_definition_says(
    monkeypatch: pytest.MonkeyPatch, block: int, n: int, L: int, derivatives: bool
) -> None:
    monkeypatch.setattr(operations, "_BLOCK", block)
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal((3, 4, rows, 8)) for rows in (n, L, L))
    places = tuple(random.standard_normal((4, n + L, 8)) for _ in range(2))
    shown = np.arange(L) < np.array([[L], [max(1, L - 2)], [1]])
    given = [tuple(mx.array(part.astype(np.float32)) for part in parts) for parts in ((q, k, v), places)]
    if derivatives:
        with operations.differentiable():
            found = disentangled_attention(*given, 0.3, mx.array(shown)[:, None, None])  # pyright: ignore
    else:
        found = disentangled_attention(*given, 0.3, mx.array(shown)[:, None, None])  # pyright: ignore
    expected = gathered(q * 0.3, k, v, (places[0], places[1] * 0.3), shown)
    np.testing.assert_allclose(np.array(found), expected, atol=2e-5, rtol=0)
