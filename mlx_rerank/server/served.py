"""A model of the server: what it is called, and its way into memory and out of it."""

import asyncio
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from mlx_rerank.checkpoints import hub
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.mapped import choose_embeddings, weights_bytes
from mlx_rerank.device.thread import device_thread
from mlx_rerank.dtypes import NAMES
from mlx_rerank.errors import ChangedCheckpointError, InputError
from mlx_rerank.scoring.loaded import ModelOptions
from mlx_rerank.scoring.reranker import Reranker
from mlx_rerank.server.readiness import hold
from mlx_rerank.server.scheduler import Scheduler
from mlx_rerank.server.threads import in_new_thread


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
        if not at or dtype not in NAMES:
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
        options: of its Reranker.
        reranker: the model itself, from the first load on.
        scheduler: its queue, from the first load on.
        in_memory: whether its weights are loaded.
        memory: bytes of its weights, by its files; 0 until they have been read.
        active: requests that it is lent to.
        waiters: one future for each request that waits for it to be loaded.
        leaving: whether it must not be lent any more, since another model needs its room.
        pairs: of all its requests, whether it is loaded or not.
        used: when the last request was done, in seconds of the monotonic clock.
        loading: the work on it, while it is under way.
    """

    spec: ModelSpec
    options: ModelOptions
    reranker: Reranker | None = None
    scheduler: Scheduler | None = None
    in_memory: bool = False
    memory: int = 0
    active: int = 0
    waiters: "list[asyncio.Future[None]]" = field(default_factory=list)
    leaving: bool = False
    pairs: int = 0
    used: float = field(default_factory=time.monotonic)
    loading: "asyncio.Task[None] | None" = None
    _directory: Path | None = None

    @property
    def usable(self) -> bool:
        """Whether its weights are loaded, and the file that word embeddings are read from is still what it was."""
        return self.in_memory and not (self.reranker and self.reranker.engine.overwritten)

    @property
    def idle(self) -> bool:
        """Whether nobody uses it, and no batch is left over from requests that have gone."""
        return not self.active and (self.scheduler is None or self.scheduler.idle)

    async def resolve(self) -> Path:
        """Return the directory of its checkpoint, downloaded if need be.

        Raises:
            CheckpointNotFoundError: it is not there and cannot be downloaded.
        """
        if self._directory is None:
            options = self.options
            find = partial(hub.resolve, self.spec.model, revision=options.revision, cache_dir=options.cache_dir)
            self._directory = await in_new_thread(find)
        return self._directory

    async def measure(self) -> None:
        """Note how many bytes its weights take in memory, by its files as they are now."""
        size = device_thread().submit(self._size, await self.resolve())
        self.memory = await asyncio.wrap_future(size)

    async def load(self) -> None:
        """Read its weights.

        Raises:
            RerankError: the weights cannot be loaded.
        """
        try:
            await self._load()
        except ChangedCheckpointError:  # while it was unloaded, or just now
            await self._forget()
            await self._load()
        await self._hold()
        self.in_memory = True
        self.used = time.monotonic()

    async def _load(self) -> None:
        """Read its weights and, the first time, all else."""
        if self.reranker and not self.reranker.engine.overwritten:
            await in_new_thread(self.reranker.engine.load)
            return
        await self._forget()
        options = replace(self.options, revision=None)  # which the directory is of already
        reranker = await in_new_thread(partial(Reranker, await self.resolve(), **vars(options)))
        model = reranker.model
        self.scheduler = Scheduler(model.engine, model.batching(), model.encoder.pad_token_id)
        self.reranker = reranker

    async def _forget(self) -> None:
        """Let go of what was read of files that have changed since: configuration and tokenizer, too."""
        scheduler, self.scheduler, self.reranker, self._directory = self.scheduler, None, None, None
        if scheduler:
            await in_new_thread(scheduler.close)

    async def unload(self) -> None:
        """Free its weights."""
        assert self.reranker
        self.in_memory = False
        await in_new_thread(self.reranker.unload)
        await self._hold()

    async def _hold(self) -> None:
        """Have a GPU keep what is loaded now."""
        if self.reranker and self.reranker.device == "gpu":
            await in_new_thread(hold)

    def _size(self, directory: Path) -> int:
        """Return how many bytes its weights take; in the device thread, which alone deals with MLX."""
        device, dtype = self.options.on
        checkpoint, packed = Checkpoint.open(directory), device.type != device.type.cpu
        kind = choose_embeddings(checkpoint, dtype, keep_quantized=packed, wanted=self.options.embeddings)
        return weights_bytes(checkpoint, dtype, packed)[kind]
