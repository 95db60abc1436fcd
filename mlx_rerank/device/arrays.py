"""From the device to numpy: the only place of the package where MLX's arrays become numpy's."""

import mlx.core as mx
import numpy as np

from mlx_rerank.errors import DeviceError


def to_numpy(array: mx.array) -> np.ndarray:
    """Compute an array, and return its numbers.

    An array is evaluated before numpy sees it: numpy swallows the error of a device that failed, asks again, and then
    gets what happened to be in memory, since MLX raises an error once.

    Args:
        array: of a dtype that numpy has; call this in the thread that made it.

    Raises:
        DeviceError: the device could not compute it.
    """
    try:
        mx.eval(array)
    except RuntimeError as error:
        raise failed(error) from error
    return np.array(array)


def failed(error: Exception) -> DeviceError:
    """Return the error that tells a caller of the device's own."""
    return DeviceError(
        f"the device failed ({error}), so there is no result: where memory is short, a smaller token_budget or "
        "max_length needs less of it; device='cpu' works without the GPU"
    )
