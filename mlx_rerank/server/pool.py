"""The models of a server: loaded when they are asked for, unloaded when idle or when memory is short."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mlx_rerank import hub
from mlx_rerank.checkpoint import Checkpoint
from mlx_rerank.device import parse_device
from mlx_rerank.dtypes import default_dtype, parse_dtype
from mlx_rerank.errors import InputError, RefusedError, RerankError
from mlx_rerank.info import weights_bytes
from mlx_rerank.mapped import choose_embeddings
from mlx_rerank.reranker import Reranker
from mlx_rerank.samples import sample_pairs
from mlx_rerank.server.scheduler import Scheduler

_DTYPES = ("float16", "bfloat16", "float32")

logger = logging.getLogger("mlx_rerank.server")


@dataclass(frozen=True)
class ModelSpec:
    """What a model is called, what it is, and the dtype that it runs in if not the device's usual one."""

    name: str
    model: str
    dtype: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ModelSpec":
        """Read ``[NAME=]MODEL[@DTYPE]``. Without a name it is called as it is written, a directory by its last part.

        Raises:
            InputError: a part is empty.
        """
        name, equals, model = text.partition("=")
        model = model if equals else text
        head, at, dtype = model.rpartition("@")
        if not at or dtype not in _DTYPES:
            head, dtype = model, ""
        name = name if equals else hub.public_name(head) + (f"@{dtype}" if dtype else "")
        if not name.strip() or not head.strip():
            raise InputError(f"--model {text!r} is not [NAME=]MODEL[@DTYPE], such as half=mini@float16")
        return cls(name, head, dtype or None)


@dataclass(eq=False)
class Served:
    """A model of the pool.

    Args:
        spec: what was asked for.
        reranker: it, from the first load on.
        scheduler: its queue, likewise.
        memory: bytes of its weights, as its files say.
        users: requests that have to do with it now.
        waiting: their pairs.
        used: when the last of them was done, in seconds of the monotonic clock.
        directory: its checkpoint, once it is known.
        loading: the work on it, while it is under way.
        in_memory: whether its weights are loaded.
    """

    spec: ModelSpec
    reranker: Reranker | None = None
    scheduler: Scheduler | None = None
    memory: int = 0
    users: int = 0
    waiting: int = 0
    used: float = field(default_factory=time.monotonic)
    directory: Path | None = None
    loading: "asyncio.Task[None] | None" = None
    in_memory: bool = False


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
        **settings: Any,
    ) -> None:
        """Take over what is to be served.

        Args:
            specs: models, the first being the default.
            keep_alive: seconds without a request after which a model is unloaded; never if None.
            memory_limit: bytes that the weights of all loaded models may take; no limit if None.
            refuse_unknown: answer 404 to a name that is not served, instead of using the default model.
            warm_up: load every model at the start, and score a few pairs with it.
            settings: of every Reranker.

        Raises:
            InputError: there are no models, or two of one name.
        """
        names = [spec.name for spec in specs]
        if not specs or len(set(names)) < len(names):
            raise InputError(
                f"a server needs models of different names, not {names}: name them as in --model NAME=MODEL"
            )
        self._served = {spec.name: Served(spec) for spec in specs}
        self._keep_alive, self._memory_limit = keep_alive, memory_limit
        self._refuse_unknown, self._warm_up, self._settings = refuse_unknown, warm_up, settings
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
            await self._load(served)
            if self._warm_up:
                assert served.reranker
                await asyncio.to_thread(served.reranker.logits, sample_pairs()[:8], show_progress=False)
        self.ready = True

    def named(self, name: str | None) -> Served:
        """Return the model that a client's name means.

        Raises:
            RefusedError: none has it, and the default one does not stand in.
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
    async def use(self, name: str | None) -> AsyncIterator[Served]:
        """Lend a model, loaded, and keep it loaded meanwhile.

        Args:
            name: that the client gave; the default model's if None.

        Raises:
            RefusedError: the start is not over, no model has that name, it cannot be loaded, or there is no room.
        """
        self.require_ready()
        served = self.named(name)
        served.users += 1
        try:
            while not served.in_memory:
                if served.loading is None:
                    served.loading = asyncio.create_task(self._load(served))
                    served.loading.add_done_callback(
                        lambda task: task.cancelled() or task.exception()
                    )  # if all have gone
                await asyncio.shield(served.loading)
            yield served
        finally:
            served.users -= 1
            served.used = time.monotonic()

    async def _load(self, served: Served) -> None:
        """Load a model, after making room for it."""
        try:
            if served.directory is None:  # outside the lock, as a download takes long
                revision = self._settings.get("revision")
                served.directory = await asyncio.to_thread(hub.resolve, served.spec.model, revision=revision)
            async with self._changing:
                await self._read(served, served.directory)
        except RefusedError:
            raise
        except (RerankError, OSError) as error:
            raise RefusedError(503, "model_error", f"{served.spec.name} cannot be loaded: {error}") from error
        finally:
            served.loading = None

    async def _read(self, served: Served, directory: Path) -> None:
        """Read a model's files."""
        start = time.monotonic()
        if self._memory_limit is not None:
            served.memory = served.memory or await asyncio.to_thread(self._size, served.spec, directory)
            await self._make_room(served)
        if served.reranker is None:
            settings = self._settings | ({"dtype": served.spec.dtype} if served.spec.dtype else {})
            served.reranker = await asyncio.to_thread(partial(Reranker, directory, **settings))
            served.scheduler = Scheduler(
                served.reranker.engine,
                served.reranker.encoder.pad_token_id,
                served.reranker.token_budget,
                deterministic=served.reranker.deterministic,
            )
        else:
            await asyncio.to_thread(served.reranker.engine.load)
        served.in_memory = True
        served.used = time.monotonic()
        logger.info("loaded", extra={"model": served.spec.name, "seconds": round(served.used - start, 3)})

    def _size(self, spec: ModelSpec, directory: Path) -> int:
        """Return how many bytes a model's weights take in memory."""
        settings = self._settings
        device = parse_device(settings.get("device"))
        wanted = spec.dtype or settings.get("dtype")
        dtype = parse_dtype(wanted) if wanted else default_dtype(device)
        checkpoint = Checkpoint.open(directory)
        packed = device.type != device.type.cpu
        kind = choose_embeddings(checkpoint, dtype, keep_quantized=packed, wanted=settings.get("embeddings"))
        return weights_bytes(checkpoint, dtype, packed)[kind]

    async def _make_room(self, wanted: Served) -> None:
        """Unload the models that were used least recently until there is room for another."""
        limit = self._memory_limit or 0
        if wanted.memory > limit:
            raise RefusedError(
                503,
                "memory_limit",
                f"{wanted.spec.name} needs {wanted.memory / 1e6:.0f} MB, more than the limit of {limit / 1e6:.0f} MB: "
                "start the server with a higher --memory-limit, or convert the model to fewer bits",
            )
        loaded = sorted((served for served in self if served.in_memory), key=lambda served: served.used)
        for served in loaded:
            if sum(other.memory for other in self if other.in_memory) + wanted.memory <= limit:
                return
            if not served.users:
                await self._unload(served, "memory")
        if sum(other.memory for other in self if other.in_memory) + wanted.memory > limit:
            raise RefusedError(
                503,
                "memory_limit",
                f"{wanted.spec.name} needs {wanted.memory / 1e6:.0f} MB, and the models in use leave less of the limit "
                f"of {limit / 1e6:.0f} MB: try again when they are done",
                retry_after=1,
            )

    async def _unload(self, served: Served, reason: str) -> None:
        """Free a model's weights."""
        assert served.reranker
        served.in_memory = False
        await asyncio.to_thread(served.reranker.unload)
        logger.info("unloaded", extra={"model": served.spec.name, "reason": reason})

    async def unload_idle(self) -> None:
        """Unload the models that nobody has used for the keep-alive time."""
        for served in self:
            async with self._changing:
                idle = served.in_memory and not served.users and self._keep_alive is not None
                if idle and time.monotonic() - served.used >= (self._keep_alive or 0):
                    await self._unload(served, "idle")

    async def close(self) -> None:
        """End the queues."""
        for served in self:
            if served.scheduler:
                await asyncio.to_thread(served.scheduler.close)
