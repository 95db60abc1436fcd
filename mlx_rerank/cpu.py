"""Let MLX's CPU backend on Linux use the machine: all cores, and memory that is not given back after each operation.

MLX runs a stream's operations one after the other in one thread, and of these only matrix products are spread over
cores, by the BLAS. So several batches, one for each core, run side by side in streams of their own.
Elsewhere nothing here does anything: on macOS the CPU is Accelerate's, and a GPU needs no help.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from mlx_rerank import blas
from mlx_rerank.pairs.batching import Batch

Forward = Callable[[np.ndarray, np.ndarray | None], mx.array]
_MOST_LANES = 8  # MLX lets some ten operations wait or run at a time, whatever the number of streams
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
_MMAP_BYTES, _TRIM_BYTES = 64 << 20, 256 << 20


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lanes(device: mx.Device) -> int:
    """Return how many batches a device computes side by side."""
    return min(cores(), _MOST_LANES) if device == mx.cpu and sys.platform.startswith("linux") else 1


class Lanes:
    """Streams of one device, on which batches run side by side."""

    def __init__(self, device: mx.Device) -> None:
        """Take the device; streams are made in the thread that uses them."""
        self.count = lanes(device)
        self._device = device
        self._streams: list[mx.Stream] = []

    def each(self, function: Forward, batches: Sequence[Batch]) -> list[mx.array]:
        """Return what a function makes of batches, in parts that follow on one another, yet to be evaluated.

        Where there are more lanes than batches, batches are cut by rows, the largest first. Whoever wants the parts to
        run side by side evaluates them together: MLX starts no evaluation while it has some ten operations to run.

        Args:
            function: of input_ids [B, L] and their mask.
            batches: at most as many as there are lanes.
        """
        if self.count == 1:
            return [function(*batch) for batch in batches]
        while len(self._streams) < self.count:
            self._streams.append(mx.new_stream(self._device))
        parts = _cut(batches, self.count)
        blas.set_threads(max(1, cores() // len(parts)))  # for the products of each
        results = []
        for stream, part in zip(self._streams, parts, strict=False):
            with mx.stream(stream):
                results.append(function(*part))
        return results


def _cut(batches: Sequence[Batch], count: int) -> list[Batch]:
    """Cut batches by rows into so many parts altogether, or into single rows."""
    pieces = [1] * len(batches)  # of each batch
    while sum(pieces) < count:
        tokens, i = max((len(ids) > pieces[i] and ids.size / pieces[i], i) for i, (ids, _) in enumerate(batches))
        if not tokens:
            break
        pieces[i] += 1
    parts = []
    for (input_ids, mask), n in zip(batches, pieces, strict=True):
        masks = [None] * n if mask is None else np.array_split(mask, n)
        parts += zip(np.array_split(input_ids, n), masks, strict=True)
    return parts


def keep_freed_memory() -> None:
    """Let the C library keep some freed memory, instead of handing it back and clearing it page by page each time.

    An operation's result of a few megabytes costs less to compute than its pages cost to map. It holds for the whole
    process; other C libraries than glibc are left as they are.
    """
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt:
            mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
            mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
            mallopt(_M_TOP_PAD, _MMAP_BYTES)
