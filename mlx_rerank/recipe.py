"""Choosing how few bits each part of a model can do with, by what every packing of it does to the logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from tqdm import tqdm

from mlx_rerank.config import Quantization
from mlx_rerank.errors import InputError
from mlx_rerank.models.xlm_roberta import CrossEncoder
from mlx_rerank.quantize import WORDS, Recipe, layer_paths, pack_and_unpack

Batch = tuple[mx.array, mx.array | None]  # input_ids int32 [B, L], attention_mask bool [B, L]
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


def measured_recipe(model: CrossEncoder, batches: Sequence[Batch], target: float, scale_bits: int) -> Recipe:
    """Pack each encoder layer, and the word embeddings, as far as the logits bear it.

    Every part is packed in every way, alone, and the change of the logits is measured. Then, from the finest packing
    of all parts, the step that costs least per bit saved is taken until the target is met. Errors of several parts
    are taken to add up.

    Args:
        model: with all its weights, in one dtype; it is left as it was.
        batches: calibration pairs.
        target: bits a weight, on average over what is packed, scales included.
        scale_bits: of a scale or a bias, which every group has one of each.

    Raises:
        InputError: the target cannot be met.
    """
    parts = [(WORDS,), *(layer_paths(n) for n in range(model.config.num_hidden_layers))]
    expected = _logits(model, batches)
    options = [
        choices_for(model, part, batches, expected, scale_bits)
        for part in tqdm(parts, desc="Measuring", unit="part", disable=None, leave=False)
    ]
    weights = sum(_weight(model, path).size for part in parts for path in part)
    chosen = [choices[0] for choices in options]
    while sum(choice.size for choice in chosen) > target * weights:
        steps = [
            ((other.error - now.error) / (now.size - other.size), i, other)
            for i, now in enumerate(chosen)
            for other in options[i]
            if other.size < now.size
        ]
        if not steps:
            least = sum(choice.size for choice in chosen) / weights
            raise InputError(f"a target of {target} bits a weight cannot be met: the least is {least:.2f}")
        _, i, chosen[i] = min(steps, key=lambda step: step[0])
    return {path: choice.packing for part, choice in zip(parts, chosen, strict=True) for path in part}


def choices_for(
    model: CrossEncoder, part: tuple[str, ...], batches: Sequence[Batch], expected: np.ndarray, scale_bits: int
) -> list[Choice]:
    """Pack one part in every way that fits its shape, and measure each; the largest first.

    Args:
        model: as in `measured_recipe`.
        part: module paths.
        batches: calibration pairs.
        expected: their logits, float64 [N].
        scale_bits: of a scale or a bias.
    """
    originals = {path: _weight(model, path) for path in part}
    seen = mx.array(np.unique(np.concatenate([np.array(ids).ravel() for ids, _ in batches])))
    count, choices = sum(weight.size for weight in originals.values()), []
    for group_size, bits in _CANDIDATES:
        if any(weight.shape[-1] % group_size for weight in originals.values()):
            continue
        packing = Quantization(group_size, bits, "affine")
        for path, weight in originals.items():
            _set_weight(model, path, _rounded(weight, packing, seen if path == WORDS else None))
        error = float(np.square(_logits(model, batches) - expected).mean())
        choices.append(Choice(packing, count * (bits + 2 * scale_bits / group_size), error))
    for path, weight in originals.items():
        _set_weight(model, path, weight)
    if not choices:
        raise InputError(f"{part[0]} cannot be packed: its rows are not a multiple of 32 wide")
    return sorted(choices, key=lambda choice: -choice.size)


def _rounded(weight: mx.array, packing: Quantization, seen: mx.array | None) -> mx.array:
    """Return a weight as its packing would give it back; only the rows that are seen, where these are given."""
    if seen is None:
        return pack_and_unpack(weight, packing)
    table = mx.array(weight)
    table[seen] = pack_and_unpack(weight[seen], packing, search=True)
    return table


def _logits(model: CrossEncoder, batches: Sequence[Batch]) -> np.ndarray:
    """Return the logits of all batches, float64 [N]."""
    return np.concatenate([np.array(model(ids, mask)) for ids, mask in batches]).astype(np.float64)


def _weight(model: CrossEncoder, path: str) -> mx.array:
    """Return the weight of the module at a path."""
    return dict(model.named_modules())[path].weight


def _set_weight(model: CrossEncoder, path: str, weight: mx.array) -> None:
    """Replace the weight of the module at a path."""
    dict(model.named_modules())[path].weight = weight
