"""Packing a model's weights to fewer bits, in mlx-lm's format."""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rerank.config import BITS, GROUP_SIZES, Quantization
from mlx_rerank.errors import InputError
from mlx_rerank.models.xlm_roberta import CrossEncoder

_WORDS = "embeddings.word_embeddings"
_SEARCHED = 2**20  # entries searched at a time, which bounds the memory of the search


def quantize(
    model: CrossEncoder, config: Mapping[str, Any], layers: Quantization, embeddings: Quantization
) -> dict[str, Any]:
    """Pack the encoder's matrices and the word embeddings, in place and lazily.

    The head and the position table stay as they are: they are small, and every score passes through them.

    Args:
        model: with its weights in the dtype that the scales will have.
        config: its config.json.
        layers: how the encoder's matrices are packed.
        embeddings: how the word embeddings are packed.

    Returns:
        A copy of config that records what was packed and how, in mlx-lm's format.

    Raises:
        InputError: MLX has no such packing, or a matrix is not a multiple of the group size wide.

    Source: mlx-lm 0.32.2 `utils.quantize_model`; tests/test_quantize.py.
    """
    for packing in (layers, embeddings):
        _require_packing(packing, model.config.hidden_size, model.config.intermediate_size)
    from mlx_lm.utils import quantize_model  # here, because it imports transformers and lowers the open-file limit

    def predicate(path: str, _: nn.Module) -> bool | dict[str, Any]:
        if path == _WORDS:
            return asdict(embeddings)
        return path.startswith("layers.")

    words = model.embeddings.word_embeddings.weight
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its own account of what it did
        _, packed = quantize_model(
            model, dict(config), layers.group_size, layers.bits, mode=layers.mode, quant_predicate=predicate
        )
    if embeddings.bits in (2, 4, 8):
        model.embeddings.word_embeddings.update(search_scales(words, embeddings))
    return packed


def search_scales(table: mx.array, packing: Quantization) -> dict[str, mx.array]:
    """Pack a table with the scale that loses least, of those that keep each group's largest entry exact.

    `mx.quantize` takes one such scale from the range of the group. A table that was on a grid of this size before
    (many published ones were, block by block, as Q4_0) comes back without loss only if its own scale is among those
    tried.

    Args:
        table: [rows, D].
        packing: with 2, 4 or 8 bits, which fill 32-bit words evenly.

    Returns:
        weight uint32, scales and biases, as `mx.quantize` returns them.
    """
    rows = max(1, _SEARCHED // table.shape[1])
    parts = [_search(table[start : start + rows], packing) for start in range(0, len(table), rows)]
    return {name: mx.concatenate([part[i] for part in parts]) for i, name in enumerate(("weight", "scales", "biases"))}


def _search(rows: mx.array, packing: Quantization) -> tuple[mx.array, mx.array, mx.array]:
    """Pack a few rows; see `search_scales`."""
    steps = 2**packing.bits - 1
    groups = rows.reshape(len(rows), -1, packing.group_size).astype(mx.float32)
    largest = mx.argmax(mx.abs(groups), axis=-1, keepdims=True)
    edge = mx.take_along_axis(groups, largest, axis=-1)  # (rows, groups, 1)
    best_error = best_scale = best_q = None
    for zero in range((steps + 1) // 2, steps + 1):  # the level at which the scale would put zero
        scale = (-edge / zero).astype(rows.dtype).astype(mx.float32)
        q = mx.clip(mx.round((groups - edge) / mx.where(scale == 0, 1.0, scale)), 0, steps)
        error = mx.square(q * scale + edge - groups).sum(axis=-1, keepdims=True)
        if best_error is None or best_scale is None or best_q is None:
            best_error, best_scale, best_q = error, scale, q
        else:
            better = error < best_error
            best_error = mx.where(better, error, best_error)
            best_scale = mx.where(better, scale, best_scale)
            best_q = mx.where(better, q, best_q)
        mx.eval(best_error, best_scale, best_q)
    assert best_q is not None
    assert best_scale is not None
    words = best_q.astype(mx.uint32).reshape(len(rows), -1, 32 // packing.bits)
    shifts = mx.arange(0, 32, packing.bits, dtype=mx.uint32)
    packed = mx.left_shift(words, shifts).sum(axis=-1).astype(mx.uint32)
    return packed, best_scale.squeeze(-1).astype(rows.dtype), edge.squeeze(-1).astype(rows.dtype)


def _require_packing(packing: Quantization, *widths: int) -> None:
    """Raise InputError for a packing that MLX does not have or that does not divide the matrices."""
    if packing.mode != "affine":
        raise InputError(f"quantization mode {packing.mode!r} is not supported: use 'affine'")
    for name, allowed in (("bits", BITS), ("group_size", GROUP_SIZES)):
        value = getattr(packing, name)
        if value not in allowed:
            raise InputError(f"{name} {value} is not one of {', '.join(map(str, allowed))}")
    for width in widths:
        if width % packing.group_size:
            raise InputError(
                f"group_size {packing.group_size} does not divide a matrix {width} wide: use a smaller one of "
                f"{', '.join(map(str, GROUP_SIZES))}"
            )
