"""Runs batches of token ids through a model, in the device thread, and hands back plain floats."""

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import mlx.core as mx
import numpy as np

from mlx_rerank import blas, memory
from mlx_rerank.checkpoint import Checkpoint, load_model
from mlx_rerank.device import device_thread
from mlx_rerank.mapped import MappedEmbeddings, choose_embeddings
from mlx_rerank.models.xlm_roberta import CrossEncoder, check_input_ids

T = TypeVar("T")
Weights = tuple[CrossEncoder, MappedEmbeddings | None]
Batch = tuple[np.ndarray, np.ndarray | None]  # input_ids int32 [B, L], attention_mask bool [B, L]
_AHEAD = 2  # batches handed over at a time: one runs while the caller pads the next


class Engine:
    """A model on a device, usable from any number of threads at once."""

    def __init__(
        self, checkpoint: Checkpoint, dtype: mx.Dtype, device: mx.Device, embeddings: str | None = None
    ) -> None:
        """Load a model and wait for it.

        Args:
            checkpoint: an opened directory.
            dtype: of all weights that are not packed.
            device: what it runs on.
            embeddings: "resident" or "mapped"; by size if None, see `choose_embeddings`.

        Raises:
            InputError: the embeddings cannot be mapped.
            CheckpointError: the checkpoint's weights cannot be used.
            MissingDependencyError: they need torch to be read, and it is not installed.
        """
        on_cpu = device == mx.cpu
        if on_cpu:
            blas.warn_if_missing()
        self._config = checkpoint.config
        self._device = device
        self._thread = device_thread()
        # The CPU backend has no fast product with packed weights: there they are unpacked once.
        self.embeddings = choose_embeddings(checkpoint, dtype, keep_quantized=not on_cpu, wanted=embeddings)
        self.tokens = 0  # computed so far, without padding; counted in the device thread
        self._load = partial(_load, checkpoint, dtype, not on_cpu, self.embeddings == "mapped")
        self._weights: Weights | None = None
        self._thread.submit(self._on_device, self._loaded).result()

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._weights is not None

    def unload(self) -> None:
        """Free the weights, after the batches that were handed over before; the next batch loads them again.

        Raises:
            DeviceError: this is a fork of the process that loaded the model.
        """
        self._thread.submit(self._drop).result()

    def run(self, batches: Iterable[Batch]) -> Iterator[np.ndarray]:
        """Yield the float32 logits [B] of each batch, in the order given.

        Batches of several callers take turns. A caller that stops iterating stops its work at the next batch.

        Raises:
            InputError: token ids outside the vocabulary, or more tokens than the model has positions.
            DeviceError: this is a fork of the process that loaded the model.
            CheckpointError: the weights were unloaded, and cannot be loaded again.
        """
        pending: deque[Future[np.ndarray]] = deque()
        try:
            for input_ids, attention_mask in batches:
                check_input_ids(input_ids, self._config)
                pending.append(self._thread.submit(self._forward, input_ids, attention_mask))
                if len(pending) == _AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def apply(self, function: Callable[[CrossEncoder, mx.array, mx.array | None], T], input_ids: np.ndarray) -> T:
        """Call a function with what the model takes, in the device thread and on its device; wait for what it returns.

        Args:
            function: of the model, the ids, and their words [B, L, D] where the embeddings are mapped.
            input_ids: int32 [B, L].

        Raises:
            DeviceError: this is a fork of the process that loaded the model.
        """
        check_input_ids(input_ids, self._config)

        def call() -> T:
            model, _ = self._loaded()
            return function(model, mx.array(input_ids), self._words(input_ids))

        return self._thread.submit(self._on_device, call).result()

    def _on_device(self, function: Callable[[], T]) -> T:
        """Call a function on the model's device; in the device thread, as all that follows."""
        with mx.stream(self._device):
            return function()

    def _loaded(self) -> Weights:
        """Return the weights, loaded again if they are not there."""
        if self._weights is None:
            self._weights = self._load()
        return self._weights

    def _drop(self) -> None:
        """Forget the weights."""
        self._weights = None
        gc.collect()  # what an error's traceback may still hold
        memory.give_back()

    def _words(self, input_ids: np.ndarray) -> mx.array | None:
        """Return the words that the model is to be given, where the embeddings are mapped."""
        _, table = self._loaded()
        return None if table is None else table(input_ids)

    def _forward(self, input_ids: np.ndarray, attention_mask: np.ndarray | None) -> np.ndarray:
        """Return the logits of one batch."""
        with mx.stream(self._device):
            model, _ = self._loaded()
            mask = None if attention_mask is None else mx.array(attention_mask)
            logits = np.array(model(mx.array(input_ids), mask, self._words(input_ids)))
        self.tokens += input_ids.size if attention_mask is None else int(attention_mask.sum())
        memory.bound_cache()
        return logits


def _load(checkpoint: Checkpoint, dtype: mx.Dtype, keep_quantized: bool, mapped: bool) -> Weights:
    """Load a model, and map its embeddings if they are not part of it."""
    model = load_model(checkpoint, dtype, keep_quantized=keep_quantized, words=not mapped)
    table = MappedEmbeddings.open(checkpoint, dtype) if mapped else None
    memory.give_back()  # buffers of tensors before they were cast, which no batch has a use for
    return model, table
