"""Let MLX's CPU backend on Linux use the machine: all cores, and memory that is not given back after each operation.

MLX runs a stream's operations one after the other in one thread, and of these only matrix products are spread over
cores, by the BLAS. So a batch is cut into parts, one for each core, that run side by side in streams of their own.
Elsewhere nothing here does anything: on macOS the CPU is Accelerate's, and a GPU needs no help.
"""

import ctypes
import os
import sys

from mlx_rerank import blas

_MOST_LANES = 8  # MLX lets some ten operations wait or run at a time, whatever the number of streams
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
_MMAP_BYTES, _TRIM_BYTES = 64 << 20, 256 << 20


def lanes() -> int:
    """Return how many parts of a batch are computed side by side."""
    return min(_cores(), _MOST_LANES) if sys.platform.startswith("linux") else 1


def share_cores(parts: int) -> None:
    """Give each of several parts that run side by side the same share of the cores for its matrix products."""
    blas.set_threads(max(1, _cores() // parts))


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


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
