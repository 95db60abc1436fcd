"""Processes that share the pairs of a call, and the choice between them and this process."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from functools import cache, partial
from itertools import cycle
from multiprocessing import get_context
from typing import Any

import numpy as np

from mlx_rerank.compat.arguments import device_named
from mlx_rerank.compat.warning import warn, warn_unused
from mlx_rerank.device.cores import cores
from mlx_rerank.device.names import parse_device
from mlx_rerank.errors import DeviceError, InputError
from mlx_rerank.pairs.arguments import require_whole_number
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.scoring.loaded import LoadedModel
from mlx_rerank.scoring.reranker import Reranker
from mlx_rerank.scoring.stopping import Stop

Pair = tuple[str, str]
Found = tuple[np.ndarray, np.ndarray]  # float32 [N] logits, and int64 [N] tokens of each pair that were cut
Compute = Callable[[Sequence[Pair], Limits, int, bool | None], Found]  # of pairs: limits, batch size, progress


class Pool:
    """Processes with a copy of a model each, which they load when they are first used."""

    def __init__(self, model: LoadedModel, devices: Sequence[Any]) -> None:
        """Prepare the processes.

        Args:
            model: what they load.
            devices: by torch's names, one for each. Those on the CPU divide the cores that this model may use.

        Raises:
            InputError: there are none, or torch has no such device.
        """
        if isinstance(devices, str) or not devices:
            raise InputError(f"a pool needs a list of devices, one for each of its processes, not {devices!r}")
        named = [device_named(name) for name in devices]
        _, options, _ = model.recipe()
        share = max(1, (options.cpu_threads or cores()) // max(1, sum(map(_on_cpu, named))))
        self._recipes = [model.recipe(device=each, cpu_threads=share) for each in named]
        self._processes = [ProcessPoolExecutor(1, get_context("spawn")) for _ in named]

    def logits(
        self, pairs: Sequence[Pair], limits: Limits, batch_size: int, progress: bool | None, chunk_size: int | None
    ) -> Found:
        """Return the logits of pairs, which the processes take in chunks.

        Args:
            pairs: queries and documents.
            limits: lengths to cut to.
            batch_size: most pairs that a process computes at once.
            progress: not shown.
            chunk_size: pairs of a chunk; as many for each process if None.

        Raises:
            DeviceError: a process has ended.
            InputError: the pool was stopped.
            RerankError: as `LoadedModel.logits`.
        """
        if not self._processes:
            raise InputError("this pool was stopped: start another one")
        size = max(1, math.ceil(len(pairs) / len(self._processes)) if chunk_size is None else chunk_size)
        chunks = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        workers = cycle(zip(self._processes, self._recipes, strict=True))
        try:
            waiting = [
                process.submit(_logits, recipe, chunk, limits, batch_size)
                for chunk, (process, recipe) in zip(chunks, workers, strict=False)
            ]
            found = [each.result() for each in waiting]
        except BrokenProcessPool as error:
            raise DeviceError(
                f"a process of the pool has ended ({error}): start another pool; a script that starts one needs "
                "`if __name__ == '__main__':` before what it does"
            ) from error
        logits, cut = zip((np.empty(0, np.float32), np.empty(0, np.int64)), *found, strict=True)
        return np.concatenate(logits), np.concatenate(cut)

    def close(self) -> None:
        """End the processes."""
        processes, self._processes = self._processes, []
        for process in processes:
            process.shutdown(cancel_futures=True)


def chosen(reranker: Reranker, device: Any, pool: Pool | None, chunk_size: int | None, ending: ExitStack) -> Compute:
    """Return what computes the pairs of a call.

    Args:
        reranker: in this process.
        device: a list of devices means a pool of processes for this call; another one than the model's is not used, as
            a warning says.
        pool: the processes to use.
        chunk_size: as for `Pool.logits`.
        ending: closes a pool that was started for this call.

    Raises:
        InputError: pool is none, or chunk_size is below one.
    """
    if chunk_size is not None:
        require_whole_number("chunk_size", chunk_size)
    if pool is not None:
        if not isinstance(pool, Pool):
            raise InputError(f"pool must be what start_multi_process_pool returned, not {pool!r:.60}")
        return partial(pool.logits, chunk_size=chunk_size)
    if isinstance(device, list | tuple) and device:
        own = ending.enter_context(closing(Pool(reranker.model, device)))
        return partial(own.logits, chunk_size=chunk_size)
    warn_unused("CrossEncoder without a pool", {"chunk_size": chunk_size})
    if device is not None and _on_cpu(device_named(device)) != (reranker.device == "cpu"):
        warn(f"CrossEncoder does not move to device {str(device)!r}: it computes where it was loaded")
    return partial(_here, reranker)


def _on_cpu(device: str | None) -> bool:
    """Tell whether a device of MLX's is the CPU."""
    found = parse_device(device)
    return found.type == found.type.cpu


def _here(reranker: Reranker, pairs: Sequence[Pair], limits: Limits, batch_size: int, progress: bool | None) -> Found:
    """Return the logits of pairs, computed in this process."""
    found = reranker.logits(pairs, limits=limits, batch_size=batch_size, show_progress=progress)
    return found.logits, found.truncated_tokens


def _logits(recipe: tuple[Any, ...], pairs: Sequence[Pair], limits: Limits, batch_size: int) -> Found:
    """Return the logits of pairs; in a process of a pool."""
    model = _loaded(recipe)
    model.checked_length(limits.max_length)
    found = model.logits(pairs, limits, Stop(), batch_size=batch_size, show_progress=False)
    return found.logits, found.truncated_tokens


@cache
def _loaded(recipe: tuple[Any, ...]) -> LoadedModel:
    """Return the model of a recipe, loaded once."""
    return LoadedModel.again(*recipe)
