"""Checks of single operations on this machine's device, against the same in float64 by numpy.

Bounds come from the dtype, the sizes of the numbers and the lengths of the sums: see `bounds`.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_rerank.checkpoints.packing import PACKINGS
from mlx_rerank.device import operations
from mlx_rerank.device.arrays import drain, to_numpy
from mlx_rerank.device.names import parse_device
from mlx_rerank.dtypes import NAMES, parse_dtype
from mlx_rerank.errors import DeviceError
from mlx_rerank.proof import bounds
from mlx_rerank.proof.finding import Finding

_ATTENDED = ((1, 1023), (1, 1024), (1, 8192), (32, 1024))  # queries and tokens; kernels change at 8 and at 1,024
_PAIRS, _HEADS, _HEAD = 2, 4, 64  # of them; the last is the numbers of a head, as in all large models
_MASKED_SIZE = 8.0  # of what the mask hides, beside 1: a glimpse of it is far beyond any bound
_TF32 = "a GPU that rounds factors to TF32, as that of M5, does not if MLX_ENABLE_TF32=0 is set before the start"
_TOO_MANY = 1 << 42  # numbers, more than any GPU gives a buffer to


def sums(device: str) -> Iterator[Finding]:
    """Check that MLX finds its device, and say what it is told of it."""
    on = parse_device(device)
    told = ", ".join(f"{name} {value}" for name, value in mx.device_info(on).items())
    with operations.on(on):
        yield Finding(f"wrong sums on the {device} ({told})", _wrong_sums(), 0)


def float32(device: str) -> Iterator[Finding]:
    """Check that products of float32 are of float32, for a vector and for matrices."""
    random = np.random.default_rng(0)
    weight = _normal(random, 1024, 768)
    for rows in (1, 16, 512):
        x = _normal(random, rows, 1024)
        with operations.on(parse_device(device)):
            found = to_numpy(mx.matmul(mx.array(x), mx.array(weight)))
        part = found - x.astype(np.float64) @ weight, bounds.product(x, weight)
        yield _worst(f"product of {rows} x 1024 and 1024 x 768", "float32", [part])


def attention(device: str) -> Iterator[Finding]:
    """Check the attention of few and of one query, with and without a mask, in each dtype."""
    for queries, length in _ATTENDED:
        for dtype in NAMES:
            with operations.on(parse_device(device)):
                parts = [_attention_error(queries, length, dtype, masked=masked) for masked in (False, True)]
            yield _worst(f"attention of {queries} to {length} tokens, {_PAIRS} rows", dtype, parts)


def packed(device: str) -> Iterator[Finding]:
    """Check products with packed weights, of a vector and of a matrix, in every packing.

    In half precision on a GPU alone: MLX's CPU sums these up in half precision, and nothing here asks it to.
    """
    for mode, (sizes, widths) in PACKINGS.items():
        for dtype in NAMES if device == "gpu" else ("float32",):
            with operations.on(parse_device(device)):
                parts = [
                    _packed_error(rows, dtype, {"group_size": size, "bits": bits, "mode": mode})
                    for size in sizes
                    for bits in widths
                    for rows in (1, 33)
                ]
            yield _worst(f"product with {mode} weights, all sizes", dtype, parts)


def errors(device: str) -> Iterator[Finding]:
    """Check that what the device cannot compute is an error and no numbers, and that it goes on after that."""
    with operations.on(parse_device(device)), tempfile.TemporaryDirectory(prefix="mlx-rerank-doctor-") as name:
        if device == "gpu":  # a CPU is given the memory, and would fill it
            numbers = int(_gives_numbers(mx.ones((_TOO_MANY >> 20, 1)) + mx.ones((1, 1 << 20))))
            yield Finding("results of more memory than there is", numbers, 0)
        numbers = int(_gives_numbers(_unreadable(Path(name) / "numbers.safetensors")))
        yield Finding("results of numbers that cannot be read", numbers, 0)
        yield Finding("wrong sums after these errors", _wrong_sums(), 0)


def _wrong_sums() -> int:
    """Return how many of some sums that no device rounds are wrong."""
    return int((to_numpy(mx.arange(1024) + mx.arange(1024)) != 2 * np.arange(1024)).sum())


def _attention_error(queries: int, length: int, dtype: str, *, masked: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each number of attention is off, and may be."""
    random = np.random.default_rng((queries, length))
    shown: np.ndarray = np.arange(length) < np.array([[length], [length // 2]])  # [B, L]
    hidden = np.where(shown | (not masked), 1, _MASKED_SIZE)[:, :, None, None]
    sizes = ((queries, 1.0), (length, hidden), (length, hidden))  # of queries, keys and values
    q, k, v = (
        mx.array((_normal(random, _PAIRS, tokens, _HEADS, _HEAD) * size).astype(np.float32))
        .astype(parse_dtype(dtype))
        .swapaxes(1, 2)
        for tokens, size in sizes
    )
    mask = mx.array(shown)[:, None, None] if masked else None
    found = _wide(operations.attention(q, k, v, _HEAD**-0.5, mask))
    query, key, value = _wide(q) * _HEAD**-0.5, _wide(k), _wide(v)
    scores = query @ np.swapaxes(key, -1, -2)
    if masked:
        scores = np.where(shown[:, None, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return found - weights @ value, bounds.attention(query, key, value, weights, dtype)


def _packed_error(rows: int, dtype: str, packing: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each number of a product with packed weights is off, and may be."""
    random = np.random.default_rng(rows)
    x = mx.array(_normal(random, rows, 512)).astype(parse_dtype(dtype))
    weight, scales, *rest = mx.quantize(mx.array(_normal(random, 256, 512)).astype(parse_dtype(dtype)), **packing)
    biases = rest[0] if rest else None
    found = mx.quantized_matmul(x, weight, scales, biases, transpose=True, **packing)
    if biases is not None:  # else scales are no floats
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    unpacked = _wide(mx.dequantize(weight, scales, biases, **packing, dtype=mx.float32))
    return _wide(found) - _wide(x) @ unpacked.T, bounds.packed(_wide(x), unpacked, dtype)


def _gives_numbers(array: mx.array) -> bool:
    """Tell whether an array that cannot be computed comes out as numbers all the same."""
    try:
        to_numpy(array)
    except DeviceError:
        drain(())
        return False
    return True


def _unreadable(path: Path) -> mx.array:
    """Return numbers whose file is cut before it is read."""
    mx.save_safetensors(str(path), {"numbers": mx.ones((4096,))})
    loaded: Any = mx.load(str(path))  # read when it is used
    os.truncate(path, 500)
    return loaded["numbers"] + 1


def _worst(what: str, dtype: str, parts: list[tuple[np.ndarray, np.ndarray]]) -> Finding:
    """Return the error that is largest beside its bound, of arrays of both; NaN counts as the largest."""
    errors, allowed = (np.concatenate([part.ravel() for part in column]) for column in zip(*parts, strict=True))
    worst = int(np.argmax(np.abs(errors) / allowed))
    measured, bound = float(np.abs(errors[worst])), float(allowed[worst])
    return Finding(f"{what}, {dtype}", measured, bound, _TF32 if dtype == "float32" else "")


def _normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Return float32 numbers of mean zero and size one."""
    return random.standard_normal(shape, dtype=np.float32)


def _wide(array: mx.array) -> np.ndarray:
    """Compute an array and return its numbers, float64."""
    return to_numpy(array.astype(mx.float32)).astype(np.float64)
