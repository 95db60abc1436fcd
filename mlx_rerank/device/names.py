"""Devices by their names."""

import mlx.core as mx

from mlx_rerank.errors import DeviceError


def parse_device(name: str | None) -> mx.Device:
    """Return the device called "gpu" or "cpu"; MLX's default one for None.

    Raises:
        DeviceError: the name is another, or this machine has no such device.
    """
    if name is None:
        return mx.default_device()
    if name not in ("gpu", "cpu"):
        raise DeviceError(f"device {name!r} is not 'gpu' or 'cpu'")
    device = mx.Device(mx.gpu if name == "gpu" else mx.cpu)
    if not mx.is_available(device):
        raise DeviceError(f"this machine has no {name} that MLX can use: pass device='cpu', or none at all")
    return device
