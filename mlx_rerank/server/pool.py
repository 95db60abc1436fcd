"""The models of a server: loaded when they are asked for, unloaded when idle or when memory is short."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from mlx_rerank.errors import InputError, RefusedError, RerankError
from mlx_rerank.scoring.loaded import ModelOptions
from mlx_rerank.server.failures import log_failure
from mlx_rerank.server.readiness import warm
from mlx_rerank.server.served import ModelSpec, Served
from mlx_rerank.server.threads import in_new_thread

_LOOK = 0.02  # seconds between two looks at whether a model is free to go

logger = logging.getLogger("mlx_rerank.server")


class Pool:
    """All models of a server; used from the event loop alone."""

    def __init__(
        self,
        specs: Sequence[ModelSpec],
        *,
        keep_alive: float | None = None,
        memory_limit: int | None = None,
        refuse_unknown: bool = False,
        warm_up: bool = False,
        options: ModelOptions | None = None,
    ) -> None:
        """Take over what is to be served.

        Args:
            specs: models, the first being the default.
            keep_alive: seconds without a request after which a model is unloaded; never if None.
            memory_limit: bytes that the weights of all loaded models may take; no limit if None.
            refuse_unknown: answer 404 to a name that is not served, instead of using the default model.
            warm_up: load every model at the start, and score a few pairs with it.
            options: of every Reranker; a model's own dtype takes precedence.

        Raises:
            InputError: there are no models, or two of one name.
        """
        names = [spec.name for spec in specs]
        if not specs or len(set(names)) < len(names):
            raise InputError(
                f"a server needs models of different names, not {names}: name them as in --model NAME=MODEL"
            )
        shared = ModelOptions() if options is None else options
        self._served = {
            s.name: Served(s, replace(shared, dtype=shared.dtype if s.dtype is None else s.dtype)) for s in specs
        }
        self._keep_alive, self._memory_limit = keep_alive, memory_limit
        self._refuse_unknown, self._warm_up = refuse_unknown, warm_up
        self._changing = asyncio.Lock()  # one model is loaded or unloaded at a time
        self.ready = False  # whether the start is over

    def __iter__(self) -> Iterator[Served]:
        """Iterate over the models."""
        return iter(self._served.values())

    @property
    def default(self) -> Served:
        """The first model."""
        return next(iter(self._served.values()))

    async def start(self) -> None:
        """Load what is to be there before the first request.

        Raises:
            RefusedError: a model cannot be loaded.
        """
        for served in list(self) if self._warm_up else [self.default]:
            async with self._lent(served):
                if self._warm_up and served.reranker:
                    await in_new_thread(partial(warm, served.reranker))
        self.ready = True

    def named(self, name: str | None) -> Served:
        """Return the model that a client's name means.

        Raises:
            RefusedError: no model has it, and the default one does not stand in.
        """
        if name and name not in self._served and self._refuse_unknown:
            message = f"model {name[:80]!r} is not served here; these are: {', '.join(self._served)}"
            raise RefusedError(404, "model_not_found", message, param="model")
        return self._served.get(name or "", self.default)

    def require_ready(self) -> None:
        """Raise RefusedError where the start is not over."""
        if not self.ready:
            message = f"{self.default.spec.name} is being loaded: try again in a moment"
            raise RefusedError(503, "loading", message, retry_after=1)

    @asynccontextmanager
    async def use(self, served: Served) -> AsyncIterator[None]:
        """Lend a model, loaded, and keep it loaded meanwhile.

        Raises:
            RefusedError: the start is not over, the model cannot be loaded, or it is larger than the memory limit.
        """
        self.require_ready()
        async with self._lent(served):
            yield

    @asynccontextmanager
    async def _lent(self, served: Served) -> AsyncIterator[None]:
        """Lend a model, whether the start is over or not."""
        if served.usable and not served.leaving:
            served.active += 1
        else:
            await self._wait_for(served)
        try:
            yield
        finally:
            served.active -= 1
            served.used = time.monotonic()

    async def _wait_for(self, served: Served) -> None:
        """Wait until a model is loaded, and lent to whoever waits here."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        served.waiters.append(waiter)
        if served.loading is None:
            served.loading = asyncio.create_task(self._load(served))
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and not waiter.exception():
                served.active -= 1  # lent just as the requester was cancelled: take it back
            raise

    async def _load(self, served: Served) -> None:
        """Load a model, after making room for it, and lend it to those who wait; or tell them why not."""
        start, failure = time.monotonic(), None
        try:
            await served.resolve()  # outside the lock, as a download takes long
            async with self._changing:
                if self._memory_limit is not None:
                    await served.measure()
                    await self._make_room(served, self._memory_limit)
                await served.load()
            seconds = round(time.monotonic() - start, 3)
            logger.info("loaded", extra={"model": served.spec.name, "seconds": seconds})
        except RefusedError as error:
            failure = error
        except Exception as error:  # whatever it is, those who wait are to know
            logger.error("not loaded", extra={"model": served.spec.name, "reason": str(error)})
            if not isinstance(error, (RerankError, OSError)):
                log_failure(error)
            message = f"{served.spec.name} cannot be loaded: the server's log says why"
            failure = RefusedError(503, "model_error", message)
            failure.__cause__ = error
        finally:  # nothing runs between the lock's release and this, so that nobody else takes the room
            served.loading = None
            self._lend(served, failure)

    def _lend(self, served: Served, failure: RefusedError | None) -> None:
        """Answer those who wait for the model."""
        waiting = [waiter for waiter in served.waiters if not waiter.done()]
        served.waiters.clear()
        for waiter in waiting:
            if failure:
                waiter.set_exception(failure)
            else:
                served.active += 1
                waiter.set_result(None)

    async def _make_room(self, wanted: Served, limit: int) -> None:
        """Unload the models that were used least recently until there is room for another.

        Those that are in use are lent to nobody else, and unloaded when they are free.
        """
        if wanted.memory > limit:
            raise RefusedError(
                503,
                "memory_limit",
                f"{wanted.spec.name} needs {wanted.memory / 1e6:.1f} MB, more than the limit of {limit / 1e6:.1f} MB: "
                "start the server with a higher --memory-limit, or convert the model to fewer bits",
            )
        others = [served for served in self if served.in_memory and served is not wanted]
        loaded = sorted(others, key=lambda served: served.used)
        room = limit - sum(served.memory for served in loaded)
        while room < wanted.memory:
            victim = loaded.pop(0)
            room += victim.memory
            victim.leaving = True
            try:
                while not victim.idle:
                    await asyncio.sleep(_LOOK)
                await self._unload(victim, "memory")
            finally:
                victim.leaving = False

    async def _unload(self, served: Served, reason: str) -> None:
        """Free a model's weights."""
        await served.unload()
        logger.info("unloaded", extra={"model": served.spec.name, "reason": reason})

    async def unload_idle(self) -> None:
        """Unload the models that nobody has used for the keep-alive time."""
        if self._keep_alive is None or self._changing.locked():
            return
        for served in self:
            async with self._changing:
                if served.in_memory and served.idle and time.monotonic() - served.used >= self._keep_alive:
                    await self._unload(served, "idle")

    async def close(self) -> None:
        """End the queues."""
        for served in self:
            if served.scheduler:
                await in_new_thread(served.scheduler.close)
