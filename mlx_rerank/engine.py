"""Runs batches of token ids through a model, in the device thread, and hands back plain floats."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import TypeVar

import mlx.core as mx
import numpy as np

from mlx_rerank import blas
from mlx_rerank.checkpoint import Checkpoint, load_model
from mlx_rerank.device import device_thread
from mlx_rerank.models.xlm_roberta import CrossEncoder, check_input_ids
from mlx_rerank.stopping import Stop

T = TypeVar("T")
Batch = tuple[np.ndarray, np.ndarray | None]  # input_ids int32 [B, L], attention_mask bool [B, L]
_AHEAD = 3  # batches of a caller handed over at a time: one that runs, one that the device runs next, one to start then


class Engine:
    """A model on a device, usable from any number of threads at once."""

    def __init__(self, checkpoint: Checkpoint, dtype: mx.Dtype, device: mx.Device) -> None:
        """Load a model and wait for it.

        Raises:
            CheckpointError: the checkpoint's weights cannot be used.
            MissingDependencyError: they need torch to be read, and it is not installed.
        """
        on_cpu = device == mx.cpu
        if on_cpu:
            blas.warn_if_missing()
        self._config = checkpoint.config
        self._device = device
        self._overlap = not on_cpu  # starting a batch there takes as long as computing it
        self._thread = device_thread()
        # The CPU backend has no fast product with packed weights: there they are unpacked once.
        self._model = self._thread.submit(self._load, checkpoint, dtype, not on_cpu).result()

    def run(self, batches: Iterable[Batch], stop: Stop | None = None) -> Generator[np.ndarray, None, None]:
        """Yield the float32 logits [B] of each batch, in the order given.

        Batches of several callers take turns. A caller that stops iterating stops its work at the next batch.

        Args:
            batches: input_ids int32 [B, L] and attention_mask bool [B, L] or None; taken a few ahead of the device.
            stop: when to stop before the end, at the next batch, even while others use the device; never if None.

        Raises:
            Stopped: the end came first.
            InputError: token ids outside the vocabulary, or more tokens than the model has positions.
            DeviceError: this is a fork of the process that loaded the model.
        """
        stop = stop or Stop()
        pending: deque[Future[np.ndarray]] = deque()
        try:
            for input_ids, attention_mask in batches:
                check_input_ids(input_ids, self._config)
                stop.check()
                pending.append(self._submit(input_ids, attention_mask))
                while pending and (len(pending) == _AHEAD or pending[0].done()):
                    yield _first(pending, stop)
            while pending:
                yield _first(pending, stop)
        finally:
            for future in pending:
                future.cancel()

    def apply(self, function: Callable[[CrossEncoder], T]) -> T:
        """Call a function with the model, in the device thread and on its device, and wait for what it returns.

        Raises:
            DeviceError: this is a fork of the process that loaded the model.
        """

        def call() -> T:
            with mx.stream(self._device):
                return function(self._model)

        return self._thread.submit(call).result()

    def _load(self, checkpoint: Checkpoint, dtype: mx.Dtype, keep_quantized: bool) -> CrossEncoder:
        """Load the model; in the device thread."""
        with mx.stream(self._device):
            return load_model(checkpoint, dtype, keep_quantized=keep_quantized)

    def _submit(self, input_ids: np.ndarray, attention_mask: np.ndarray | None) -> Future[np.ndarray]:
        """Queue one batch; on a GPU, so that it is started before the one ahead of it is waited for."""
        if self._overlap:
            return self._thread.submit_split(self._start, self._finish, input_ids, attention_mask)
        return self._thread.submit(lambda: self._finish(self._start(input_ids, attention_mask)))

    def _start(self, input_ids: np.ndarray, attention_mask: np.ndarray | None) -> mx.array:
        """Set the device to work on one batch, without waiting for it; in the device thread, where the array stays."""
        with mx.stream(self._device):
            logits = self._forward(input_ids, attention_mask)
            mx.async_eval(logits)
            return logits

    def _finish(self, logits: mx.array) -> np.ndarray:
        """Wait for one batch and return its logits; in the device thread."""
        return np.array(logits)

    def _forward(self, input_ids: np.ndarray, attention_mask: np.ndarray | None) -> mx.array:
        """Return the logits of one batch, yet to be computed; in the device thread, on the device's stream."""
        mask = None if attention_mask is None else mx.array(attention_mask)
        return self._model(mx.array(input_ids), mask)


def _first(pending: "deque[Future[np.ndarray]]", stop: Stop) -> np.ndarray:
    """Wait for the first of the pending batches, and only then take it out: until then it may have to be cancelled."""
    logits = stop.wait(pending[0])
    pending.popleft()
    return logits
