"""Packing a model's weights to fewer bits, in mlx-lm's format."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.device.arrays import telling
from mlx_rerank.errors import InputError
from mlx_rerank.models.family import Family, module_at
from mlx_rerank.models.shape import Shape

_SEARCHED = 2**20  # entries searched at a time, which bounds the memory of the search

Recipe = Mapping[str, Quantization]  # module path -> how its weight is packed; a path that is missing stays as it is


def uniform_recipe(
    family: Family, shape: Shape, layers: Quantization | None, embeddings: Quantization | None
) -> Recipe:
    """Return the recipe that packs all of the encoder's matrices alike, and the word embeddings.

    The head and the position table are in no recipe: they are small, and every score passes through them.

    Args:
        family: of the model.
        shape: of the model.
        layers: how the encoder's matrices are packed; not at all if None.
        embeddings: how the word embeddings are packed; not at all if None.
    """
    recipe = {path: layers for matrices in family.packable(shape) for path in matrices if layers is not None}
    return recipe | ({} if embeddings is None else {family.words: embeddings})


def check_recipe(recipe: Recipe, family: Family, shape: Shape) -> None:
    """Check that MLX has every packing of a recipe, and that its groups fill the model's rows.

    Raises:
        InputError: MLX has no such packing, or the groups do not fill the rows.
    """
    widths = widths_of(family, shape)
    for path, packing in recipe.items():
        if not isinstance(packing, Quantization):
            raise InputError(f"a packing is a Quantization(group_size, bits, mode), or None, not {packing!r}")
        if packing.problem:
            raise InputError(f"weights cannot be packed so: {packing.problem}")
        width = widths[path]
        if width % packing.group_size:
            raise InputError(
                f"group_size {packing.group_size} does not divide the rows of {path}, which are {width} wide: use a "
                "smaller one, or another mode"
            )


def widths_of(family: Family, shape: Shape) -> dict[str, int]:
    """Return the width of the rows of everything that may be packed, by path: the matrices, then the words."""
    return {path: width for of in family.packable(shape) for path, width in of.items()} | {
        family.words: shape.word_size
    }


def describe_recipe(recipe: Recipe, words: str) -> str:
    """Say in words what is packed and how.

    Args:
        recipe: at least one module.
        words: path of the table of word embeddings.
    """
    encoder = {packing for path, packing in recipe.items() if path != words}
    bits = sorted({packing.bits for packing in encoder})
    parts = []
    if len(encoder) == 1:
        parts.append(f"encoder packed {_in_words(*encoder)}")
    elif encoder:
        span = f"{bits[0]} to {bits[-1]}" if len(bits) > 1 else f"{bits[0]}"
        parts.append(f"encoder packed to {span} bits, layer by layer as measured")
    if words in recipe:
        parts.append(f"word embeddings packed {_in_words(recipe[words])}")
    return ", ".join(parts)


def _in_words(packing: Quantization) -> str:
    """Say how one matrix is packed."""
    return f"to {packing.bits} bits in groups of {packing.group_size}" + f" ({packing.mode})" * (
        packing.mode != "affine"
    )


def quantize(model: nn.Module, config: Mapping[str, Any], recipe: Recipe, words: str) -> dict[str, Any]:
    """Pack weights, in place and lazily.

    Args:
        model: with its weights in the dtype that the scales will have.
        config: its config.json.
        recipe: what is packed and how, at least one module; `check_recipe` has passed it.
        words: path of the table of word embeddings.

    Returns:
        A copy of config that records what was packed and how, in mlx-lm's format.

    Source: mlx-lm 0.32.2 `utils.quantize_model`, whose import takes seconds; tests/integration/test_mlx_lm.py.
    """
    usual = Counter(recipe.values()).most_common(1)[0][0]
    table = module_at(model, words).weight
    nn.quantize(model, class_predicate=lambda path, _: asdict(recipe[path]) if path in recipe else False)
    recorded = asdict(usual) | {path: asdict(packing) for path, packing in recipe.items() if packing != usual}
    if words in recipe and searched(recipe[words]):
        module_at(model, words).update(search_scales(table, recipe[words]))
    return {**config, "quantization": recorded, "quantization_config": recorded}  # the latter for the hub's model tree


def unpacked(weight: mx.array, packing: Quantization, *, words: bool) -> mx.array:
    """Return a weight [rows, D] packed as `quantize` packs it and unpacked again, in its own dtype.

    Args:
        weight: a matrix, or rows of the word embeddings.
        packing: of the weight.
        words: whether it is rows of the word embeddings, whose scales may be searched.
    """
    if words and searched(packing):
        codes, scales, biases = search_scales(weight, packing).values()
    else:
        codes, scales, *rest = mx.quantize(weight, **vars(packing))
        biases = rest[0] if rest else None
    return mx.dequantize(codes, scales, biases, **vars(packing), dtype=weight.dtype)


def searched(packing: Quantization) -> bool:
    """Tell whether scales of the word embeddings are searched: only if they have few enough levels to try all."""
    return packing.mode == "affine" and packing.bits in (2, 4)


@telling()
def search_scales(table: mx.array, packing: Quantization) -> dict[str, mx.array]:
    """Pack a table; each group's scale loses least among those that keep the group's largest entry exact.

    `mx.quantize` takes one such scale from the range of the group. A table that was on a grid of this size before
    (many published ones were, block by block, as Q4_0) comes back without loss only if its own scale is among those
    tried.

    Args:
        table: [rows, D].
        packing: affine with 2, 4 or 8 bits, which fill 32-bit words evenly.

    Returns:
        weight uint32, scales and biases, as `mx.quantize` returns them.

    Raises:
        DeviceError: the device could not compute it.
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
