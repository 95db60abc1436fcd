"""Whether MLX uses all of the chip: not every build, nor every macOS, has the kernels of the newest one."""

import os
import platform
import re
import sys
import warnings

from mlx_rerank.device.wheel import wheel_tag

TF32 = "MLX_ENABLE_TF32"
_GENERATION, _OF_PHONES = 17, 18  # of the first GPUs with matrix units; 17 is M5's
_MACOS = (26, 2)  # the first on which MLX 0.32 uses them
_WHEEL = 26  # the macOS of the oldest build with kernels for them


def problem() -> str | None:
    """Return why MLX does not use this machine's matrix units, and what mends it; None where all is well.

    Source: is_nax_available in MLX 0.32's mlx/backend/metal/device.cpp, and the kernels in the wheels of mlx-metal.
    """
    if sys.platform != "darwin":
        return None
    import mlx.core as mx

    chip = mx.device_info()
    if not has_matrix_units(str(chip.get("architecture", ""))):
        return None
    name, release, tag = chip.get("device_name", "this chip"), platform.mac_ver()[0], wheel_tag("mlx-metal") or ""
    if _numbers(release) < _MACOS:
        return (
            f"MLX uses the matrix units of {name} from macOS 26.2 on, and this is {release}: update macOS, then run "
            "`pip install --force-reinstall mlx mlx-metal`, which chooses the build by it"
        )
    built_for = re.search(r"macosx_(\d+)", tag)
    if built_for and int(built_for[1]) < _WHEEL:
        return (
            f"the installed build of MLX ({tag}) has no kernels for the matrix units of {name}, so products take "
            "several times as long: run `pip install --force-reinstall mlx mlx-metal` with a pip that knows this macOS"
        )
    return None


def warn_if_missing() -> None:
    """Warn that MLX does not use all of the chip, and say how to mend it."""
    found = problem()
    if found:
        warnings.warn(f"mlx-rerank: {found}", RuntimeWarning, stacklevel=2)


def has_matrix_units(architecture: str) -> bool:
    """Tell whether a GPU has matrix units, by what Metal calls it, such as applegpu_g17s; a phone's ends with p."""
    found = re.fullmatch(r"\D*(\d+)(\D)", architecture)
    return found is not None and int(found[1]) >= (_OF_PHONES if found[2] == "p" else _GENERATION)


def keep_float32() -> None:
    """Have products of float32 numbers computed in float32, unless the environment says otherwise.

    Matrix units round the factors to TF32, some three digits, unless MLX_ENABLE_TF32 is 0. MLX looks at it once, at the
    first such product of the process: later this changes nothing.
    """
    os.environ.setdefault(TF32, "0")


def _numbers(release: str) -> tuple[int, ...]:
    """Return the first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])
