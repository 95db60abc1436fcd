"""Let MLX's CPU backend on Linux use all cores.

MLX runs a stream's operations one after the other in one thread, and only matrix products are spread over cores, by the
BLAS. So several batches, one for each core, run side by side in streams of their own. Elsewhere this module does
nothing: on macOS the CPU is Accelerate's, and a GPU needs no help.
"""

import sys
import threading
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from mlx_rerank.device import blas, operations
from mlx_rerank.device.cores import cores

Batch = Sequence[np.ndarray | None]  # arrays that belong together row by row; the first is there, and is [B, L]
Forward = Callable[..., mx.array]  # of the arrays of a batch
_MOST_LANES = 8  # MLX lets some ten operations wait or run at a time, whatever the number of streams
_made = threading.local()  # its `streams` of the CPU serve all models; MLX's belong to the thread they were made in


def lanes(device: mx.Device, threads: int | None = None) -> int:
    """Return how many batches a device computes side by side.

    Args:
        device: a CPU has as many lanes as it may use cores, as far as MLX can use them.
        threads: cores that may be used; those of this process if None.
    """
    if not _divided(device):
        return 1
    return min(cores() if threads is None else threads, _MOST_LANES)


class Lanes:
    """Streams of one device, on which batches run side by side."""

    def __init__(self, device: mx.Device, threads: int | None = None) -> None:
        """Take the device; streams are made in the thread that uses them.

        Args:
            device: what computes.
            threads: cores of a CPU that may be used; those of this process if None.
        """
        self.count = lanes(device, threads)
        self._device = device
        self._threads = (cores() if threads is None else threads) if _divided(device) else None

    def each(
        self, function: Forward, batches: Sequence[Batch], settle: Callable[[], object] = lambda: None
    ) -> list[mx.array]:
        """Return a function's results for batches, in consecutive parts, yet to be evaluated.

        Where there are more lanes than batches, batches are cut by rows, the largest first. To run the parts side by
        side, evaluate them together: MLX starts no evaluation while it has some ten operations to run.

        Args:
            function: of the arrays of a batch, or of some of its rows.
            batches: at most as many as there are lanes.
            settle: returns when nothing runs on the device.
        """
        if self.count == 1:
            self._share(1, settle)
            return [function(*batch) for batch in batches]
        made = streams()
        while len(made) < self.count:
            made.append(mx.new_stream(self._device))
        parts = _cut(batches, self.count)
        self._share(len(parts), settle)
        results = []
        for stream, part in zip(made, parts, strict=False):
            with operations.on(stream):
                results.append(function(*part))
        return results

    def _share(self, parts: int, settle: Callable[[], object]) -> None:
        """Let the products of each of some parts use its share of the cores.

        Some kernels round otherwise with another number of threads, and that number is one for the process. So it
        changes only after all that runs: else the moment of the change would decide bits.
        """
        if self._threads is None:
            return
        threads = max(1, self._threads // parts)
        if blas.threads() not in (None, threads):
            settle()
            blas.set_threads(threads)


def streams() -> list[mx.Stream]:
    """Return the streams that lanes have made in this thread."""
    return _made.__dict__.setdefault("streams", [])


def _divided(device: mx.Device) -> bool:
    """Tell whether the cores of a device are shared out here."""
    return device == mx.cpu and sys.platform.startswith("linux")


def _cut(batches: Sequence[Batch], count: int) -> list[Batch]:
    """Cut batches by rows into `count` parts altogether, or into single rows."""
    first = [ids for ids, *_ in batches if ids is not None]
    pieces = [1] * len(batches)  # of each batch
    while sum(pieces) < count:
        tokens, i = max((len(ids) > pieces[i] and ids.size / pieces[i], i) for i, ids in enumerate(first))
        if not tokens:
            break
        pieces[i] += 1
    parts: list[Batch] = []
    for batch, n in zip(batches, pieces, strict=True):
        columns = [[None] * n if array is None else np.array_split(array, n) for array in batch]
        parts += zip(*columns, strict=True)
    return parts
