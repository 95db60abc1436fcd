"""Choosing how few bits suffice for each part of a model, by what every packing of it does to the logits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from tqdm import tqdm

from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.convert.quantize import Recipe, unpacked, widths_of
from mlx_rerank.device.arrays import to_numpy
from mlx_rerank.errors import InputError, NonFiniteScoreError
from mlx_rerank.models.family import Family
from mlx_rerank.models.shape import Shape

Inputs = Mapping[str, Any]  # what the model is called with, by name: arrays, or None
_CANDIDATES = ((64, 8), (64, 6), (64, 5), (32, 4), (64, 4), (64, 3), (64, 2))  # group size and bits


@dataclass(frozen=True)
class Choice:
    """One way to pack one part of the model.

    Args:
        packing: of every matrix of the part.
        size: bits that the part then takes, scales included.
        error: mean squared |delta logit| that this alone causes.
    """

    packing: Quantization
    size: float
    error: float


def check_target(family: Family, shape: Shape, target: float) -> None:
    """Check, before anything is measured, that there is something to choose from.

    Raises:
        InputError: the target is no size, or the model's rows cannot be packed in groups of 32.
    """
    if not 0 < target < math.inf:
        raise InputError(f"a target is a number of bits a weight, such as 5.5, not {target}")
    for width in widths_of(family, shape).values():
        if width % 32:
            raise InputError(
                f"rows {width} wide do not divide into groups of 32: use mode nvfp4, whose groups are of 16"
            )


def measured_recipe(
    model: nn.Module, family: Family, shape: Shape, batches: Sequence[Inputs], target: float, scale_bits: int
) -> Recipe:
    """Pack each encoder layer, and the word embeddings, as far as the logits allow.

    Every part is packed in every way, alone, and the change of the logits is measured. All parts start with their
    finest packing. Then the step that costs least per bit saved is taken, again and again, until the target is met.
    Bits that a large last step leaves over go where they help most. Errors of several parts are assumed to add up.

    Args:
        model: with all its weights, in one dtype; it is left as it was.
        family: of the model.
        shape: of the model.
        batches: calibration pairs.
        target: most bits a weight, on average over what is packed, scales included.
        scale_bits: of a scale or a bias; every group has one of each.

    Raises:
        InputError: the target is below what packing can do.
        NonFiniteScoreError: the model's logits are not finite before any packing.
    """
    modules: dict[str, Any] = dict(model.named_modules())
    parts = [(family.words,), *map(tuple, family.packable(shape))]
    expected = _logits(model, batches)
    if not np.isfinite(expected).all():
        raise NonFiniteScoreError(
            f"{int((~np.isfinite(expected)).sum())} of {len(expected)} calibration pairs have a logit of NaN or "
            "infinity: the weights are damaged, or the dtype is too narrow for this model"
        )

    def measure(part: tuple[str, ...]) -> list[Choice]:
        own = {path: modules[path] for path in part}
        return choices_for(model, own, batches, expected, scale_bits, words=part == (family.words,))

    options = [measure(part) for part in tqdm(parts, desc="Measuring", unit="part", disable=None, leave=False)]
    weights = sum(modules[path].weight.size for part in parts for path in part)
    least = sum(choices[-1].size for choices in options) / weights
    if target < least:
        raise InputError(f"a target of {target} bits a weight cannot be met: the least is {least:.2f}")
    chosen = within_budget(target * weights, options)
    return {path: choice.packing for part, choice in zip(parts, chosen, strict=True) for path in part}


def within_budget(budget: float, options: Sequence[Sequence[Choice]]) -> list[Choice]:
    """Choose an option for every part so that all fit a budget.

    Args:
        budget: bits in all, enough for the smallest options.
        options: of each part, the largest first.
    """
    chosen = [choices[0] for choices in options]
    while sum(choice.size for choice in chosen) > budget:
        steps = [
            ((other.error - now.error) / (now.size - other.size), i, other)
            for i, now in enumerate(chosen)
            for other in options[i]
            if other.size < now.size
        ]
        _, i, chosen[i] = min(steps, key=lambda step: step[0])
    while True:
        left = budget - sum(choice.size for choice in chosen)
        gains = [
            ((now.error - other.error) / (other.size - now.size), i, other)
            for i, now in enumerate(chosen)
            for other in options[i]
            if now.size < other.size <= now.size + left and other.error < now.error
        ]
        if not gains:
            return chosen
        _, i, chosen[i] = max(gains, key=lambda gain: gain[0])


def choices_for(
    model: nn.Module,
    part: Mapping[str, Any],
    batches: Sequence[Inputs],
    expected: np.ndarray,
    scale_bits: int,
    *,
    words: bool = False,
) -> list[Choice]:
    """Pack one part in every way that fits its shape, and measure each; the largest first.

    Args:
        model: as in `measured_recipe`.
        part: modules by path.
        batches: calibration pairs.
        expected: their logits, float64 [N].
        scale_bits: of a scale or a bias.
        words: whether the part is the table of word embeddings.
    """
    originals = {path: module.weight for path, module in part.items()}
    seen = mx.array(np.unique(np.concatenate([to_numpy(batch["input_ids"]).ravel() for batch in batches])))
    count, choices = sum(weight.size for weight in originals.values()), []
    for group_size, bits in _CANDIDATES:
        if any(weight.shape[-1] % group_size for weight in originals.values()):
            continue
        packing = Quantization(group_size, bits, "affine")
        for path, module in part.items():
            module.weight = _rounded(originals[path], packing, seen if words else None)
        error = float(np.square(_logits(model, batches) - expected).mean())
        size = count * (bits + 2 * scale_bits / group_size)
        choices.append(Choice(packing, size, error if math.isfinite(error) else math.inf))
    for path, module in part.items():
        module.weight = originals[path]
    return sorted(choices, key=lambda choice: -choice.size)


def _rounded(weight: mx.array, packing: Quantization, seen: mx.array | None) -> mx.array:
    """Return a weight as its packing would give it back; of the word embeddings, only the rows that are seen."""
    if seen is None:
        return unpacked(weight, packing, words=False)
    table = mx.array(weight)
    table[seen] = unpacked(weight[seen], packing, words=True)
    return table


def _logits(model: nn.Module, batches: Sequence[Inputs]) -> np.ndarray:
    """Return the logits of all batches, float64 [N]."""
    return np.concatenate([to_numpy(model(**batch)) for batch in batches]).astype(np.float64)
