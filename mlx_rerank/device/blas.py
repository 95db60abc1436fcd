"""Give MLX's CPU backend an optimised BLAS on Linux.

The Linux wheel of MLX bundles the reference BLAS, whose matrix products run at a few GFLOP/s. Symbols of a library
that is loaded globally *before* MLX take precedence over the bundled ones, so OpenBLAS or MKL can stand in for it.
The environment variable MLX_RERANK_BLAS names another library or path to load, or is "off" for MLX's own.
On macOS MLX uses Accelerate, and this module does nothing.
"""

import ctypes
import importlib
import os
import sys
import warnings
from pathlib import Path
from typing import Any

VARIABLE, OFF = "MLX_RERANK_BLAS", "off"
REMEDY = "install one with `apt install libopenblas0` (or your distribution's OpenBLAS), or `pip install mkl`"
_CANDIDATES = ("libopenblas.so.0", "libopenblas.so", "libmkl_rt.so.3", "libmkl_rt.so.2")

_SET_THREADS = ("openblas_set_num_threads", "MKL_Set_Num_Threads")
_GET_THREADS = ("openblas_get_num_threads", "MKL_Get_Max_Threads")

_loaded: str | None = None
_library: ctypes.CDLL | None = None
_problem: str | None = None


def preload() -> None:
    """Load the BLAS that MLX_RERANK_BLAS names, or else the first optimised one found; remember why if there is none.

    Runs once, when the package is imported, because it works only before MLX is imported. It stays silent: a process
    that never computes on the CPU has no need to know, and whoever asks for "off" knows.
    """
    global _loaded, _library, _problem
    wanted = os.environ.get(VARIABLE)
    if not sys.platform.startswith("linux") or _loaded or wanted == OFF:
        return
    if "mlx.core" in sys.modules:
        _problem = "mlx was imported before mlx_rerank, so its own slow BLAS is in use: import mlx_rerank first"
        return
    if wanted:
        _problem = _load(wanted)
        return
    environment = Path(sys.prefix, "lib")  # where pip puts MKL
    for name in _CANDIDATES:
        for path in (name, str(environment / name)):
            try:
                _library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
            except OSError:
                continue
            _loaded = path
            return
    _problem = f"no optimised BLAS was found, so scoring on the CPU is some 50 times slower: {REMEDY}"


def _load(wanted: str) -> str | None:
    """Load a library or path; return why it cannot be used, or None. No other is tried in its place."""
    global _loaded, _library
    try:
        library = ctypes.CDLL(wanted, mode=ctypes.RTLD_GLOBAL)
        library.cblas_sgemm  # noqa: B018  # what MLX calls: without it the library would change nothing
    except (OSError, AttributeError) as error:
        return (
            f"{VARIABLE} is {wanted}, which is no BLAS that can be loaded ({error}), so MLX's own slow one is in use: "
            f"name another library, or {OFF!r} for MLX's own without this warning, or unset it"
        )
    _loaded, _library = wanted, library
    return None


def loaded() -> str | None:
    """Return the name of the BLAS that was loaded, or None."""
    return _loaded


def import_with_own(name: str) -> Any:
    """Import a module so that its libraries keep their own BLAS, instead of taking the one loaded here.

    Torch calls its own from threads of its own, and is some eight times as slow with this one.

    Raises:
        ImportError: the module cannot be imported.
    """
    if _loaded is None:
        return importlib.import_module(name)
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
    try:
        return importlib.import_module(name)
    finally:
        sys.setdlopenflags(flags)


def threads() -> int | None:
    """Return how many cores a product may use, or None where that cannot be chosen."""
    return next((int(get()) for name in _GET_THREADS if (get := getattr(_library, name, None))), None)


def set_threads(number: int) -> None:
    """Let a product use this many cores, in the whole process from now on; without an optimised BLAS it uses one."""
    for name in _SET_THREADS:
        function = getattr(_library, name, None)
        if function:
            function(number)


def warn_if_missing() -> None:
    """Warn once per process that the CPU is slow and how to mend it."""
    global _problem
    if _problem:
        warnings.warn(f"mlx-rerank: {_problem}", RuntimeWarning, stacklevel=2)
        _problem = None
