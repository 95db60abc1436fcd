"""Runs batches of token ids through a model, in the device thread, and hands back plain floats."""

import gc
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_rerank.checkpoints import copies
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.mapped import Inputs, MappedEmbeddings, choose_embeddings, inputs_of
from mlx_rerank.device import blas, memory, operations
from mlx_rerank.device.arrays import telling, to_numpy
from mlx_rerank.device.lanes import Lanes
from mlx_rerank.device.memory import keep_freed_memory
from mlx_rerank.device.thread import device_thread
from mlx_rerank.dtypes import dtype_name
from mlx_rerank.pairs.batching import Batch
from mlx_rerank.scoring.stopping import Stop

T = TypeVar("T")
_AHEAD = 2  # groups of a caller handed over at a time: one that the device works on, and one that is prepared
Weights = tuple[nn.Module, MappedEmbeddings | None]


class Engine:
    """A model on a device, usable from any number of threads at once."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: mx.Dtype,
        device: mx.Device,
        embeddings: str | None = None,
        cpu_threads: int | None = None,
    ) -> None:
        """Load a model and wait for it.

        Args:
            checkpoint: an opened directory. Of a hub model, a converted copy is read in its place.
            dtype: of all weights that are not packed.
            device: what it runs on.
            embeddings: "resident" or "mapped"; by size if None, see `choose_embeddings`.
            cpu_threads: as for `Lanes`.

        Raises:
            InputError: the embeddings cannot be mapped.
            CheckpointError: the checkpoint's weights cannot be used.
            MissingDependencyError: they need torch to be read, and it is not installed.
        """
        on_cpu = device == mx.cpu
        if on_cpu:
            blas.warn_if_missing()
            keep_freed_memory()
        self._shape = checkpoint.shape
        self._device = device
        self._lanes = Lanes(device, cpu_threads)
        self._thread = device_thread()
        self.tokens = 0  # computed so far, without padding; counted in the device thread
        # The CPU backend has no fast product with packed weights: there they are unpacked once.
        read = partial(_read, dtype=dtype, keep_quantized=not on_cpu, embeddings=embeddings)
        self._load = partial(copies.load, checkpoint, dtype_name(dtype), device, read)
        self._weights: Weights | None = None
        self.embeddings = ""  # "resident" or "mapped", from the first load on
        self.load()

    def load(self) -> None:
        """Load the weights where they are not in memory.

        Raises:
            CheckpointError: they cannot be used, or are not those of before.
            DeviceError: this is a fork of the process that loaded the model.
        """
        self._thread.submit(self._on_device, self._loaded).result()

    @property
    def overwritten(self) -> bool:
        """Whether the file that word embeddings are read from was written to, so that no batch can be computed."""
        table = self._weights[1] if self._weights else None
        return table is not None and table.overwritten

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._weights is not None

    def unload(self) -> None:
        """Free the weights, after the batches that are already queued; the next batch loads them again.

        Raises:
            DeviceError: this is a fork of the process that loaded the model.
        """
        self._thread.submit(self._drop).result()

    @property
    def side_by_side(self) -> int:
        """How many batches the device computes at the same time."""
        return self._lanes.count

    def run(self, groups: Iterable[Sequence[Batch]], stop: Stop | None = None) -> Generator[np.ndarray, None, None]:
        """Yield the float32 logits of each group of batches, in the order given.

        Groups of several callers take turns. A caller that stops iterating stops its work at the next group.

        Args:
            groups: of batches that run side by side, at most `side_by_side` of them. They are taken a few ahead of the
                device.
            stop: when to stop before the end, at the next group, even while others use the device; never if None.

        Raises:
            Stopped: it was time to stop before the end.
            InputError: token ids outside the vocabulary, or more tokens than the model has positions.
            DeviceError: this is a fork of the process that loaded the model.
            CheckpointError: the weights were unloaded, and cannot be loaded again; or a file in use was overwritten.
        """
        stop = stop or Stop()
        pending: deque[Future[np.ndarray]] = deque()
        try:
            for group in groups:
                stop.check()
                pending.append(self._submit(group))
                while pending and (len(pending) == _AHEAD or pending[0].done()):
                    yield _first(pending, stop)
            while pending:
                yield _first(pending, stop)
        finally:
            for future in pending:
                future.cancel()

    def apply(self, function: Callable[[nn.Module, Inputs], T], batch: Batch) -> T:
        """Call a function with the model and its arguments, in the device thread and on its device; return the result.

        Args:
            function: takes the model and the arguments to call it with.
            batch: the rows.

        Raises:
            InputError: token ids outside the vocabulary, or more tokens than the model has positions.
            DeviceError: this is a fork of the process that loaded the model.
        """

        def call() -> T:
            model, table = self._loaded()
            return function(model, inputs_of(batch, self._shape, table))

        return self._thread.submit(self._on_device, call).result()

    def _on_device(self, function: Callable[[], T]) -> T:
        """Call a function on the model's device; in the device thread, like all methods below."""
        with operations.on(self._device), telling():
            return function()

    def _loaded(self) -> Weights:
        """Return the weights, loaded again if they are not there."""
        if self._weights is None:
            self._weights = self._load()
            self.embeddings = "resident" if self._weights[1] is None else "mapped"
        return self._weights

    def _drop(self) -> None:
        """Forget the weights."""
        self._weights = None
        gc.collect()  # an error's traceback may still hold them
        memory.give_back()

    def _submit(self, group: Sequence[Batch]) -> Future[np.ndarray]:
        """Queue a group, so that it is prepared while the device works on the one ahead of it."""
        return self._thread.submit_parts(self._prepare, self._start, self._finish, group)

    def _prepare(self, group: Sequence[Batch]) -> list[mx.array]:
        """Return the logits of a group, yet to be computed; in the device thread."""
        with operations.on(self._device), telling():
            if self._weights is None:
                self._thread.settle()  # since reading weights uses the device
            return self._lanes.each(self._forward, group, self._thread.settle)

    def _start(self, logits: list[mx.array]) -> None:
        """Set the device to work on a group, without waiting for it; in the device thread."""
        with telling():
            mx.async_eval(logits)

    def _finish(self, logits: list[mx.array]) -> np.ndarray:
        """Wait for a group and return its logits; in any thread."""
        with telling():
            finished = np.concatenate([to_numpy(part) for part in logits])
            memory.bound_cache()
        return finished

    def _forward(self, *arrays: np.ndarray | None) -> mx.array:
        """Return the logits of some rows of a batch, yet to be computed; in the device thread, on one stream."""
        model, table = self._loaded()
        batch = Batch(*arrays)  # pyright: ignore[reportArgumentType]
        self.tokens += batch.tokens
        return model(**inputs_of(batch, self._shape, table))


def _read(checkpoint: Checkpoint, dtype: mx.Dtype, keep_quantized: bool, embeddings: str | None) -> Weights:
    """Load a model, and open the table of its embeddings if they are not part of it."""
    with checkpoint.reading():
        mapped = choose_embeddings(checkpoint, dtype, keep_quantized=keep_quantized, wanted=embeddings) == "mapped"
        model = checkpoint.load(dtype, keep_quantized=keep_quantized, words=not mapped)
        table = MappedEmbeddings.open(checkpoint, dtype) if mapped else None
    memory.give_back()  # no batch can use the buffers of tensors from before they were cast
    return model, table


def _first(pending: "deque[Future[np.ndarray]]", stop: Stop) -> np.ndarray:
    """Wait for the first of the pending groups, and only then take it out: until then it may have to be cancelled."""
    logits = stop.wait(pending[0])
    pending.popleft()
    return logits
