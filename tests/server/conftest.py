"""Fixtures of the server's unit tests: the application in this process, with the tiny model."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlx_rerank.server.app import create_app
from mlx_rerank.server.handler import Bounds, Handler
from mlx_rerank.server.pool import Pool
from mlx_rerank.server.served import ModelSpec
from mlx_rerank.server.settings import Settings

Connect = Callable[..., AbstractAsyncContextManager[tuple[httpx.AsyncClient, Handler]]]


@pytest.fixture
def connect(tiny: Path) -> Connect:
    """Return a function that gives a client of an application and its handler, within one event loop."""

    @asynccontextmanager
    async def connected(
        *, bounds: Bounds | None = None, start: bool = True, settings: Settings | None = None, **options: Any
    ) -> AsyncIterator[tuple[httpx.AsyncClient, Handler]]:
        specs = options.pop("specs", None) or [ModelSpec("tiny", str(tiny))]
        pool = Pool(specs, **options)
        handler = Handler(pool, bounds or Bounds())
        if start:
            await pool.start()
        transport = httpx.ASGITransport(create_app(handler, settings or Settings()), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client, handler
        await handler.close()

    return connected
