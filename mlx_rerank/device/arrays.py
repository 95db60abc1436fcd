"""From the device to numpy: the only place of the package where MLX's arrays become numpy's."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import mlx.core as mx
import numpy as np

from mlx_rerank.errors import DeviceError, RerankError

_MOST_ERRORS = 100  # that are waited for; no more operations than this are on their way at a time


def to_numpy(array: mx.array) -> np.ndarray:
    """Compute an array, and return its numbers.

    An array is evaluated before numpy sees it: numpy swallows the error of a device that failed, asks again, and then
    gets what happened to be in memory, since MLX raises an error once.

    Args:
        array: of a dtype that numpy has. Another thread than the one that made it may call this only if the device has
            been set to work on it.

    Raises:
        DeviceError: the device could not compute it.
    """
    with telling():
        mx.eval(array)
    return np.array(array)


@contextmanager
def telling() -> Iterator[None]:
    """Raise MLX's errors within as what a caller can act on.

    Raises:
        DeviceError: the device could not do what was asked of it within.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, RerankError):
            raise
        raise DeviceError(
            f"the device failed ({error}), so there is no result: where memory is short, a smaller token_budget or "
            "max_length needs less of it; device='cpu' works without the GPU"
        ) from error


def drain(streams: Iterable[mx.Stream]) -> None:
    """Wait for work that may have failed, and have MLX raise all errors of it: each would reach whoever asks next.

    Args:
        streams: that the work may be on, beside the devices' default ones.
    """
    defaults = [
        mx.default_stream(device) for device in (mx.Device(mx.cpu), mx.Device(mx.gpu)) if mx.is_available(device)
    ]
    for stream in (*defaults, *streams):
        for _ in range(_MOST_ERRORS):
            try:
                mx.synchronize(stream)
                mx.clear_cache()  # which raises what has failed on any stream
                break
            except RuntimeError:
                continue
