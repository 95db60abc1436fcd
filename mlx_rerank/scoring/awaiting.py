"""Calls that block, awaited."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
# Two keep a device busy, one tokenising while the other computes. Calls beyond that wait here, and not in the event
# loop's own threads, where a thousand of them would hold up whatever else the program has to do.
_CALLS = 4
_threads = ThreadPoolExecutor(_CALLS, "mlx-rerank-async")


def _renew() -> None:
    """Start anew in a fork, which has none of its parent's threads: calls would wait for them for ever."""
    global _threads
    _threads = ThreadPoolExecutor(_CALLS, "mlx-rerank-async")


os.register_at_fork(after_in_child=_renew)


async def in_thread(work: Callable[[], T], cancel: threading.Event) -> T:
    """Return what a call returns, without holding up the event loop.

    Args:
        work: the call, which ends soon after `cancel` is set.
        cancel: is set when the task that waits is cancelled; a call that has not begun never does.
    """
    try:
        return await asyncio.get_running_loop().run_in_executor(_threads, work)
    except asyncio.CancelledError:
        cancel.set()
        raise
