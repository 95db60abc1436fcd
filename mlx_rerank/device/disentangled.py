"""Attention to the contents of tokens and to their distances, in the form that suits the device."""

import math

import mlx.core as mx

from mlx_rerank.device.operations import (
    _HIDDEN,
    _attend,
    _by_sums_and_products,
    _in_blocks,
    _place,
    _whole_attention,
)


def disentangled_attention(
    qkv: tuple[mx.array, mx.array, mx.array],
    places: tuple[mx.array, mx.array],
    scale: float,
    mask: mx.array | None,
) -> mx.array:
    """Return softmax(scale * (q k^T + c2p + p2c)) v: attention to the contents of tokens, and to their distances.

    c2p is the product of a query with the key of its distance to the other token, p2c that of a key with the query of
    this distance. The products with all distances are made first, then each row of them is moved to its place.

    Args:
        qkv: floating [B, H, n, D/H], the first n tokens' queries, and [B, H, L, D/H], all tokens' keys and values.
        places: of the same dtype, [H, n + L, D/H]: keys of the distances from n - 1 down to -L, and queries of the
            distances from 1 - L up to n, where a distance is the query's place less the key's.
        scale: of the scores.
        mask: bool [B, 1, 1, L], True on real tokens, at least one per row; None where all are real.

    Returns:
        As q. NaN where a score is not finite.

    Source: transformers' DisentangledSelfAttention; tests/unit/device/test_disentangled.py.
    """
    q, k, v = qkv
    keys, queries = places
    fast = _by_sums_and_products(q, k, v)
    factor = scale * (math.log2(math.e) if fast else 1)  # so that 2 can be the base
    q, queries = q * factor, queries * factor
    if fast and mask is not None:
        mask = mx.where(mask, 0.0, _HIDDEN).swapaxes(-1, -2)

    def attend(b: slice, h: slice) -> mx.array:
        to_places = _skewed(mx.matmul(q[b, h], keys[h].swapaxes(-1, -2), stream=_place.get()), k.shape[2])
        from_places = _skewed(mx.matmul(k[b, h], queries[h].swapaxes(-1, -2), stream=_place.get()), q.shape[2])
        shown = None if mask is None else mask[b]
        if fast:
            bias = from_places + to_places.swapaxes(-1, -2)
            return _attend(q[b, h], k[b, h], v[b, h], bias if shown is None else bias + shown)
        bias = to_places + from_places.swapaxes(-1, -2)
        return _whole_attention(q[b, h], k[b, h], v[b, h], 1.0, shown, bias)

    return _in_blocks(q.shape[:2], (q.shape[2] + k.shape[2]) * k.shape[2], attend)


def _skewed(x: mx.array, columns: int) -> mx.array:
    """Return y[..., i, j] = x[..., i, j - i + n - 1] of x [..., n, n + columns], by moving where rows begin."""
    n, width = x.shape[-2:]
    return x.reshape(*x.shape[:-2], -1)[..., n - 1 : -1].reshape(*x.shape[:-1], width - 1)[..., :columns]
