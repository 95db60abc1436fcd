"""Arguments as other libraries take them: options by name, and devices by torch's names."""

from collections.abc import Mapping
from typing import Any

from mlx_rerank.compat.warning import warn
from mlx_rerank.device.names import parse_device
from mlx_rerank.errors import InputError

_ACCELERATORS = ("mps", "cuda", "gpu", "xpu", "npu", "musa", "hpu")


def device_named(name: Any) -> str | None:
    """Return "cpu", or None for MLX's default device, for a name of torch's; warn of a GPU that is not here.

    Args:
        name: such as "cpu", "mps", "cuda:0", a torch.device or the number of a GPU; None for the default.

    Raises:
        InputError: torch has no such device.
    """
    if name is None:
        return None
    kind = str(name).partition(":")[0]
    if kind == "cpu":
        return "cpu"
    if kind not in _ACCELERATORS and not kind.isdecimal():
        raise InputError(f"device {name!r} is not 'cpu', a number, or one of {', '.join(_ACCELERATORS)}")
    default = parse_device(None)
    if default.type == default.type.cpu:
        warn(f"there is no device {str(name)!r} here: computing on the CPU")
    return None


def options_named(name: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return options as a dict of the callee's own; an empty one for None.

    Args:
        name: of the argument.
        given: its value.

    Raises:
        InputError: it is no mapping.
    """
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"{name} must be a dict or None, not {given!r}")
    return {} if given is None else dict(given)
