"""Calls that block, awaited."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
# Two keep a device busy, one tokenising while the other computes. Calls beyond that wait here, and not in the event
# loop's own threads, where a thousand of them would hold up whatever else the program has to do.
_threads = ThreadPoolExecutor(4, "mlx-rerank-async")


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
