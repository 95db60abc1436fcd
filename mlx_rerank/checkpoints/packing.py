"""How weights are packed to fewer bits, as config.json says it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_rerank.errors import CheckpointError

PACKINGS = {  # modes of MLX's packed weights, each with its group sizes and bits, the usual ones first
    "affine": ((64, 32, 128), (8, 2, 3, 4, 5, 6)),
    "mxfp4": ((32,), (4,)),
    "mxfp8": ((32,), (8,)),
    "nvfp4": ((16,), (4,)),
}


@dataclass(frozen=True)
class Quantization:
    """How one layer's weight is packed, as in mlx-lm's config.json."""

    group_size: int
    bits: int
    mode: str

    @property
    def problem(self) -> str | None:
        """Why MLX has no such packing, or None if it has."""
        if not isinstance(self.mode, str) or self.mode not in PACKINGS:
            return f"mode {self.mode!r:.40} is not one of {', '.join(PACKINGS)}"
        sizes, bits = PACKINGS[self.mode]
        for name, value, allowed in (("bits", self.bits, bits), ("group_size", self.group_size, sizes)):
            if type(value) is not int or value not in allowed:
                return f"{name} {value!r:.40} is not one of {', '.join(map(str, sorted(allowed)))} (mode {self.mode})"
        return None


def quantization_of(config: Mapping[str, Any], path: str) -> Quantization:
    """Return how the layer at `path` is packed: its own entry, or else the checkpoint's.

    Raises:
        CheckpointError: config.json says nothing about it, or nothing that MLX knows.
    """
    entries = config.get("quantization") or {}
    try:
        own = entries.get(path, entries)
        packing = Quantization(own["group_size"], own["bits"], own.get("mode", "affine"))
    except (KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{path} is quantized, but config.json has no 'quantization' entry with group_size and bits for it"
        ) from None
    if packing.problem:
        raise CheckpointError(f"{path}: config.json gives a packing that MLX does not have: {packing.problem}")
    return packing
