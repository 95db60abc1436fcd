"""A device that is at other work."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_rerank import Reranker
from mlx_rerank.device.thread import device_thread


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


def slowed(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have each pair computed in a batch of its own, for 20 ms; return a list that grows by one with each."""
    monkeypatch.setattr(reranker.model, "deterministic", True)
    forward, computed = reranker.engine._forward, []
    monkeypatch.setattr(reranker.engine, "_forward", lambda *b: (time.sleep(0.02), computed.append(1), forward(*b))[2])
    return computed


def failing(path: Path, count: int) -> mx.array:
    """Return `count` numbers, float32, that the device fails to compute: their file is cut before it is read."""
    mx.save_safetensors(str(path), {"numbers": mx.ones((count, 4096))})
    loaded: Any = mx.load(str(path))  # read when it is used
    os.truncate(path, 500)
    return loaded["numbers"][:, 0] + 1
