"""Work that would hold up the event loop, in threads that nobody waits for when the server ends."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def in_new_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own, and return its result.

    Unlike the event loop's own pool it has room for whoever comes, however long others take; and a download that
    stalls does not keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(finish: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():  # else nobody waits any more
            finish(outcome)

    def work() -> None:
        try:
            outcome = future.set_result, function()
        except BaseException as error:
            outcome = future.set_exception, error
        with suppress(RuntimeError):  # the event loop has ended meanwhile
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=work, name="mlx-rerank-loader", daemon=True).start()
    return await future
