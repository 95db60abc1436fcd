"""Attention in which a token sees none that follow it, in the form that suits the device."""

import math

import mlx.core as mx

from mlx_rerank.device.operations import _BLOCK, _HIDDEN, _attend, _by_sums_and_products, _place

_LEAST = 32  # queries of a block, whatever their scores take


def causal_attention(q: mx.array, k: mx.array, v: mx.array, scale: float) -> mx.array:
    """Return softmax(scale * q k^T) v, each query over the keys up to its own.

    The last query belongs to the last key: keys that come before the first query's are seen by all.

    Args:
        q: floating [B, H, L, D].
        k: of the same dtype, [B, H/G, P + L, D]; each of its heads serves G of q's.
        v: as k.
        scale: of the scores.

    Returns:
        As q. NaN where a score is not finite.

    Source: mx.fast.scaled_dot_product_attention(mask="causal"); tests/unit/device/test_decoding_operations.py.
    """
    if not _by_sums_and_products(q, k, v):
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask="causal", stream=_place.get())
    B, H, L, D = q.shape
    heads, before = k.shape[1], k.shape[2] - L
    q = (q * (scale * math.log2(math.e))).reshape(B, heads, H // heads, L, D)  # so that 2 can be the base
    step = max(_LEAST, _BLOCK // (B * H * k.shape[2]))
    blocks = []
    for start in range(0, L, step):
        end = min(start + step, L)
        seen = before + end  # keys that follow are seen by no query of the block
        hidden = mx.arange(seen)[:, None] > mx.arange(before + start, seen)
        bias = mx.tile(mx.where(hidden, _HIDDEN, 0.0), (1, H // heads))  # [seen, queries of all heads that share keys]
        part = q[:, :, :, start:end].reshape(B, heads, -1, D)
        block = _attend(part, k[:, :, :seen], v[:, :, :seen], bias)
        blocks.append(block.reshape(B, heads, H // heads, end - start, D))
    return mx.concatenate(blocks, axis=3).reshape(B, H, L, D)
