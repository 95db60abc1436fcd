"""Attention of each token to its neighbours, in time and memory proportional to the length of a row.

Shape letters: B pairs, L tokens, H heads, D/H size of a head, C tokens of a block, N blocks of a row.
"""

from dataclasses import dataclass

import mlx.core as mx

from mlx_rerank.device import operations

_WHOLE = 4  # most blocks in a row that is not cut into them: with three of four visible there is little to save


@dataclass(frozen=True)
class Window:
    """Which tokens each token of a batch sees: real ones at most `reach` places away, and itself.

    Padding sees itself so that its softmax is over something: else it is NaN, and the next layer spreads that.

    Args:
        reach: places to either side.
        real: bool [B, L], True on real tokens; None where all are.
        visible: bool [B or 1, 1, L, L] in a short row, else [B * N, 1, C, 3 C]: the keys are those of a block of
            queries and of the blocks beside it.
    """

    reach: int
    real: mx.array | None
    visible: mx.array

    @classmethod
    def of(cls, reach: int, pairs: int, length: int, real: mx.array | None) -> "Window":
        """Return the window of a batch of pairs of this length."""
        block = max(reach, 1)
        if length <= _WHOLE * block:
            places = mx.arange(length)
            return cls(reach, real, _near(places, places, reach, real, None)[:, None])
        blocks = -(-length // block)
        queries = mx.arange(blocks * block).reshape(1, blocks, block)
        keys = mx.arange(-block, (blocks + 1) * block)[None, None, :, None]
        keys = _beside(keys, block)[..., 0].reshape(1, blocks, 3 * block)
        inside = (keys >= 0) & (keys < length)
        if real is not None:
            shown = mx.pad(real, [(0, 0), (block, (blocks + 1) * block - length)])[:, None, :, None]
            inside = _beside(shown, block)[..., 0].reshape(-1, blocks, 3 * block)
        near = _near(queries, keys, reach, None, inside)
        near = mx.broadcast_to(near, (pairs, *near.shape[1:]))
        return cls(reach, real, near.reshape(pairs * blocks, 1, block, 3 * block))

    def attend(self, q: mx.array, k: mx.array, v: mx.array, scale: float) -> mx.array:
        """Return what each token attends to, as `operations.attention`.

        Args:
            q: floating [B, H, L, D/H], or [B, H, 1, D/H] of the first token.
            k: of the same dtype, [B, H, L, D/H].
            v: as k.
            scale: of the scores.
        """
        B, H, L, size = k.shape
        if q.shape[2] < L:
            end = self.reach + 1
            mask = None if self.real is None else self.real[:, None, None, :end]
            return operations.attention(q, k[:, :, :end], v[:, :, :end], scale, mask)
        block = self.visible.shape[2]
        if block == L:
            mask = mx.broadcast_to(self.visible, (B, 1, L, L))
            return operations.attention(q, k, v, scale, mask)
        rest = -L % block
        q = mx.pad(q, [(0, 0), (0, 0), (0, rest), (0, 0)]).reshape(B, H, -1, block, size)
        q = q.swapaxes(1, 2).reshape(-1, H, block, size)
        k, v = (_beside(mx.pad(part, [(0, 0), (0, 0), (block, rest + block), (0, 0)]), block) for part in (k, v))
        attended = operations.attention(q, k, v, scale, self.visible).reshape(B, -1, H, block, size)
        return attended.swapaxes(1, 2).reshape(B, H, -1, size)[:, :, :L]


def _near(queries: mx.array, keys: mx.array, reach: int, real: mx.array | None, inside: mx.array | None) -> mx.array:
    """Return which keys [..., K] a query [..., Q] sees, by their places: bool [..., Q, K]."""
    apart = mx.abs(queries[..., :, None] - keys[..., None, :])
    shown = real if inside is None else inside
    if shown is None:
        return (apart <= reach)[None]
    return (apart <= reach) & shown[..., None, :] | (apart == 0)


def _beside(padded: mx.array, block: int) -> mx.array:
    """Return each block's own rows and those of the blocks beside it.

    Args:
        padded: [B, H, (N + 2) C, size], with a block more on either side.
        block: C.

    Returns:
        [B * N, H, 3 C, size].
    """
    B, H, rows, size = padded.shape
    parts = padded.reshape(B, H, rows // block, block, size).swapaxes(1, 2)
    three = mx.concatenate([parts[:, :-2], parts[:, 1:-1], parts[:, 2:]], axis=3)
    return three.reshape(-1, H, 3 * block, size)
