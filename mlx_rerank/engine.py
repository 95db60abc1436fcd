"""Runs batches of token ids through a model, in the device thread, and hands back plain floats."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

import mlx.core as mx
import numpy as np

from mlx_rerank import blas, cpu
from mlx_rerank.checkpoint import Checkpoint, load_model
from mlx_rerank.device import device_thread
from mlx_rerank.models.xlm_roberta import CrossEncoder, check_input_ids

T = TypeVar("T")
Batch = tuple[np.ndarray, np.ndarray | None]  # input_ids int32 [B, L], attention_mask bool [B, L]
_AHEAD = 2  # batches handed over at a time: one runs while the caller pads the next


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
            cpu.keep_freed_memory()
        self._config = checkpoint.config
        self._device = device
        self._lanes = cpu.lanes() if on_cpu else 1
        self._streams: list[mx.Stream] = []
        self._thread = device_thread()
        # The CPU backend has no fast product with packed weights: there they are unpacked once.
        self._model = self._thread.submit(self._load, checkpoint, dtype, not on_cpu).result()

    def run(self, batches: Iterable[Batch]) -> Iterator[np.ndarray]:
        """Yield the float32 logits [B] of each batch, in the order given.

        Batches of several callers take turns. A caller that stops iterating stops its work at the next batch.

        Raises:
            InputError: token ids outside the vocabulary, or more tokens than the model has positions.
            DeviceError: this is a fork of the process that loaded the model.
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

    def _forward(self, input_ids: np.ndarray, attention_mask: np.ndarray | None) -> np.ndarray:
        """Return the logits of one batch; in the device thread."""
        with mx.stream(self._device):
            if self._lanes == 1:
                return np.array(self._logits(input_ids, attention_mask))
            return self._side_by_side(input_ids, attention_mask)

    def _side_by_side(self, input_ids: np.ndarray, attention_mask: np.ndarray | None) -> np.ndarray:
        """Return the logits of one batch, whose rows are shared among the lanes; in the device thread."""
        while len(self._streams) < self._lanes:
            self._streams.append(mx.new_stream(self._device))
        parts = np.array_split(np.arange(len(input_ids)), min(len(input_ids), self._lanes))
        cpu.share_cores(len(parts))
        logits = []
        for stream, rows in zip(self._streams, parts, strict=False):
            with mx.stream(stream):
                logits.append(self._logits(input_ids[rows], None if attention_mask is None else attention_mask[rows]))
        mx.eval(logits)  # together, or one would wait for the other
        return np.concatenate([np.array(part) for part in logits])

    def _logits(self, input_ids: np.ndarray, attention_mask: np.ndarray | None) -> mx.array:
        """Return the logits of some rows, not evaluated."""
        return self._model(mx.array(input_ids), None if attention_mask is None else mx.array(attention_mask))
