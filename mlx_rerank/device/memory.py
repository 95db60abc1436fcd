"""What MLX and the process hold in memory, and giving back what is only kept for later."""

import ctypes
import os
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx

_STATUS = Path("/proc/self/status")  # on Linux, where getrusage would count what the parent process once had

# MLX keeps freed buffers for arrays of the same size, by default up to nearly all memory of the machine. Every batch of
# another shape leaves some. The bound is checked after a batch. `mx.set_cache_limit` is not used: it holds for the
# whole process at all times, and would slow down whatever else runs on MLX. So another library loses at most what it
# has in the cache at that moment. It has to be several times what one batch leaves, or batches of two shapes in turn
# would free each other's: by MLX's rules, one of 4,096 tokens of bge-reranker-v2-m3 leaves up to 800 MB on a GPU, where
# its layers are under way together. Not measured on Metal.
_LEAST_CACHE, _CACHE_SHARE = 512 << 20, 1 / 16  # bytes; of the memory of a machine with a GPU


@dataclass(frozen=True)
class Usage:
    """Memory in bytes.

    Args:
        mlx_active: of MLX's arrays.
        mlx_peak: the most that they had.
        process_resident: of the process, mapped pages of files included; None where that cannot be asked for.
        process_peak: the most that it had.
    """

    mlx_active: int
    mlx_peak: int
    process_resident: int | None
    process_peak: int


def installed() -> int:
    """Return the bytes of the machine's memory, which on Apple Silicon is the GPU's too."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cache_limit(with_gpu: bool) -> int:
    """Return how many bytes of freed buffers are worth keeping.

    Args:
        with_gpu: whether the machine has one.
    """
    return max(_LEAST_CACHE, int(_CACHE_SHARE * installed())) if with_gpu else _LEAST_CACHE


CACHE_LIMIT = cache_limit(mx.is_available(mx.Device(mx.gpu)))


def usage() -> Usage:
    """Return what this process holds."""
    return Usage(mx.get_active_memory(), mx.get_peak_memory(), *_process())


def bound_cache() -> None:
    """Give back MLX's freed buffers where they are more than `CACHE_LIMIT`."""
    if mx.get_cache_memory() > CACHE_LIMIT:
        mx.clear_cache()


def give_back() -> None:
    """Give back MLX's freed buffers, and what the C library has kept of freed memory."""
    mx.clear_cache()
    trim = _of_the_c_library("malloc_trim")
    if trim is not None:
        trim(0)


def keep_in_place(room: int) -> None:
    """Have macOS keep what MLX holds now in the GPU's memory, and some more; by itself it takes it out after seconds.

    Args:
        room: bytes beside what is held now, for batches.
    """
    most = mx.device_info().get("max_recommended_working_set_size")  # which Metal alone tells, and more is an error
    if most:
        mx.set_wired_limit(min(int(most), mx.get_active_memory() + room))


@cache
def _of_the_c_library(name: str) -> Any:
    """Return a function of glibc, or None where the C library is another."""
    return getattr(ctypes.CDLL(None), name, None)


def _process() -> tuple[int | None, int]:
    """Return current and peak resident memory of the process."""
    if _STATUS.exists():
        lines = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", _STATUS.read_text()))
        return int(lines["VmRSS"]) * 1024, int(lines["VmHWM"]) * 1024
    import resource  # which Windows lacks

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None, peak if sys.platform == "darwin" else peak * 1024


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
_MMAP_BYTES, _TRIM_BYTES = 64 << 20, 256 << 20


def keep_freed_memory() -> None:
    """Let the C library keep some freed memory, instead of handing it back and clearing it page by page each time.

    An operation's result of a few megabytes costs less to compute than its pages cost to map. It holds for the whole
    process; other C libraries than glibc are left as they are.
    """
    if sys.platform.startswith("linux"):
        mallopt = _of_the_c_library("mallopt")
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
            mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
            mallopt(_M_TOP_PAD, _MMAP_BYTES)
