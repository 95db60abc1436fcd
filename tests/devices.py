"""A device that is at other work."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mlx_rerank.device import device_thread


@contextmanager
def busy_device() -> Iterator[None]:
    """Keep the device at another caller's work."""
    gate = threading.Event()
    working = device_thread().submit(gate.wait)
    try:
        yield
    finally:
        gate.set()
        working.result()
