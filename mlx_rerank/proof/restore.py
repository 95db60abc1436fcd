"""From a converted directory back to the tensors that transformers' model has, in numpy alone.

The reverse of conversion. Packed weights are unpacked bit by bit here, and by MLX there. The family's table, read
backwards, says which tensors a parameter was made of. So a wrong name in it cannot hide: the tensor gets its own name
again, and the reference uses it in its own place, while the model here uses it in another.
"""

from pathlib import Path

import mlx.core as mx
import numpy as np
from safetensors.numpy import load_file

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.weights import port
from mlx_rerank.device.arrays import to_numpy


def state_dict(directory: Path) -> dict[str, np.ndarray]:
    """Return float32 tensors by transformers' names; tensors that were added to others come back as zeros.

    Args:
        directory: a converted one, or a checkpoint with other names than transformers'.
    """
    checkpoint = Checkpoint.open(directory)
    family, shape = checkpoint.family, checkpoint.shape
    if checkpoint.converted:
        weights = _unpacked(load_file(directory / "model.safetensors"), checkpoint.raw.get("quantization", {}))
    else:
        ported = port(checkpoint.tensors(), family, shape, mx.float32)
        weights = {name: to_numpy(value) for name, value in ported}
    state = {}
    for rule in (family.in_transformers.table or family.table)(shape):
        names, shapes = zip(*(rule.restored or rule.sources), strict=True)
        state |= zip(names, rule.how.separate(weights[rule.target], shapes), strict=True)
    return state


def _unpacked(weights: dict[str, np.ndarray], quantization: dict) -> dict[str, np.ndarray]:
    """Return float32 weights; packed ones are codes in 32-bit words, lowest bits first, and a scale for each group."""
    unpacked = {}
    for name, value in weights.items():
        path, _, kind = name.rpartition(".")
        if kind in ("scales", "biases"):
            continue
        if kind == "weight" and path + ".scales" in weights:
            own = quantization.get(path, quantization)
            bits = np.unpackbits(value.view(np.uint8), axis=-1, bitorder="little").reshape(-1, own["bits"])
            codes = np.packbits(bits, axis=-1, bitorder="little")  # at most 8 bits: one byte each
            groups = codes.reshape(len(value), -1, own["group_size"])
            scales, biases = weights[path + ".scales"], weights.get(path + ".biases")
            value = _values(groups, scales, biases, own.get("mode", "affine")).reshape(len(value), -1)
        unpacked[name] = value.astype(np.float32)
    return unpacked


def _values(codes: np.ndarray, scales: np.ndarray, biases: np.ndarray | None, mode: str) -> np.ndarray:
    """Return float32 values of codes [rows, groups, group size].

    Source: OCP Microscaling Formats specification 1.0, tables 1, 5 and 7; nvfp4 has E4M3 scales.
    """
    if mode == "affine":
        assert biases is not None
        return codes * scales.astype(np.float32)[..., None] + biases.astype(np.float32)[..., None]
    elements = _small_floats(4, 3) if mode == "mxfp8" else _small_floats(2, 1)
    if mode == "nvfp4":
        return elements[codes] * _small_floats(4, 3)[scales][..., None]
    return elements[codes] * np.exp2(scales.astype(np.float32) - 127)[..., None]


def _small_floats(exponent_bits: int, mantissa_bits: int) -> np.ndarray:
    """Return the float32 value of every code of a small float: sign, exponent, mantissa; no infinities."""
    code = np.arange(1 << (1 + exponent_bits + mantissa_bits))
    mantissa = (code & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1)
    bias = (1 << (exponent_bits - 1)) - 1
    size = np.where(exponent == 0, mantissa * 2.0 ** (1 - bias), (1 + mantissa) * np.exp2(exponent - bias))
    return np.where(code >> (exponent_bits + mantissa_bits), -size, size).astype(np.float32)
