"""What to know about a machine before reading anything measured on it; MLX is not asked, which may not work there."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from typing import Any

from mlx_rerank.device import blas
from mlx_rerank.device.wheel import wheels

_VARIABLES = (  # that change what MLX computes or how; no others are told, which may hold secrets
    "MLX_DISABLE_COMPILE",
    "MLX_ENABLE_TF32",
    "MLX_MAX_MB_PER_BUFFER",
    "MLX_MAX_OPS_PER_BUFFER",
    "MLX_METAL_FAST_SYNCH",
    "MLX_METAL_RESIDENCY_REFRESH_INTERVAL_MS",
)


def describe() -> dict[str, Any]:
    """Return facts about this machine and what is installed on it, by name; None for what it does not tell."""
    limit = _sysctl("iogpu.wired_limit_mb")
    return {
        "chip": _sysctl("machdep.cpu.brand_string") or platform.processor() or None,
        "system": f"{_system()} {platform.machine()}",
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "wired_limit_bytes": None if limit is None else int(limit) << 20,  # of the GPU; 0 is the system's own choice
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("mlx-rerank", "mlx")},
        "wheels": wheels(),
        "blas": blas.loaded(),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def _system() -> str:
    """Return the name of the system, and the version of macOS."""
    return f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else platform.system()


def _sysctl(name: str) -> str | None:
    """Return what macOS tells by a name; None on another system, or where it has no such name."""
    if sys.platform != "darwin":
        return None
    done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
