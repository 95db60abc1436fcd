"""Converted copies of hub models, so that only the first start on a machine reads and casts the hub's weights.

A copy only saves time, so nothing fails because of one: where it cannot be kept, the model is converted in memory.
"""

import fcntl
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import mlx.core as mx

from mlx_rerank.checkpoints import hub, weights
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.converted import write_converted
from mlx_rerank.device import operations
from mlx_rerank.errors import CheckpointError, OutputError, RerankError

T = TypeVar("T")
FORMAT = 3  # of what convert writes; tests/unit/checkpoints/test_copies.py notices when it must be raised by one
VARIABLE = "MLX_RERANK_CACHE"
_UNUSED = 30 * 24 * 3600  # seconds

logger = logging.getLogger("mlx_rerank")


def load(checkpoint: Checkpoint, dtype: str, device: mx.Device, loader: Callable[[Checkpoint], T]) -> T:
    """Return a loader's result for a model: from its converted copy if that loads faster, else from the model itself.

    Call this in the device thread.

    Args:
        checkpoint: any. Only a hub model that is stored in another dtype, or as a pytorch_model.bin, gets a copy.
        dtype: that the model will run in.
        device: that converts.
        loader: called with the checkpoint to read.

    Raises:
        CheckpointError: the model itself cannot be loaded.
    """
    for _ in range(2):  # where a copy turns out to be damaged, another one is made
        copy = _find_or_make(checkpoint, dtype, device)
        if copy is None:
            break
        try:
            return loader(Checkpoint.open(copy))
        except CheckpointError as error:
            logger.warning("the converted copy of a model is damaged, and removed: %s", error)
            shutil.rmtree(copy, ignore_errors=True)
    return loader(checkpoint)


def cache_directory() -> Path | None:
    """Return the directory of all copies: $MLX_RERANK_CACHE, or the usual one of the platform; None if turned off.

    Raises:
        RuntimeError: it would be below the home directory, and there is none.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return None if chosen.strip().lower() in ("", "off") else Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mlx-rerank"
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "mlx-rerank"


def _find_or_make(checkpoint: Checkpoint, dtype: str, device: mx.Device) -> Path | None:
    """Return the directory of a model's copy; None where it needs none or cannot have one."""
    try:
        repo_id, commit = hub.repo_of(checkpoint.directory), hub.commit_of(checkpoint.directory)
        if repo_id is None or checkpoint.converted or not _pays(checkpoint, dtype):
            return None
        root = cache_directory()
        if root is None:
            return None
        name = f"{commit}-{checkpoint.identity.key}-{dtype}-v{FORMAT}"  # the snapshot may be another cache's, or edited
        target = root / "converted" / repo_id.replace("/", "--") / name
        if not (target.is_dir() or _make(checkpoint, dtype, device, target)):
            return None
        with suppress(OSError):  # of a cache that may only be read; then nothing in it is removed either
            os.utime(target)
        return target
    except Exception as error:  # whatever it is, the model may load without a copy
        if isinstance(error, OutputError) or not isinstance(error, RerankError):  # else the loader says what is wrong
            logger.warning(
                "no converted copy of %s is kept (%s): every start converts it anew; to stay without, set %s=off",
                checkpoint.directory, error, VARIABLE,
            )  # fmt: skip
        return None


def _pays(checkpoint: Checkpoint, dtype: str) -> bool:
    """Tell whether a copy loads faster than the model itself; it does not if both hold the same bytes."""
    files = weights.safetensors_files(checkpoint.directory)
    return files is None or weights.stored_dtypes(files) != {dtype}


def _make(checkpoint: Checkpoint, dtype: str, device: mx.Device, target: Path) -> bool:
    """Write a copy and remove those that nobody used for long; False if another process or thread is writing one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target.parent) as alone:
        if alone and not target.is_dir():
            with operations.on(device):
                write_converted(checkpoint, target, dtype)
            logger.info("kept a %s copy of the model for the next start: %s", dtype, target)
            for other in target.parent.glob("*-v*"):
                if time.time() - other.stat().st_mtime > _UNUSED:  # who still has it loaded reads the snapshot again
                    shutil.rmtree(other, ignore_errors=True)
    return target.is_dir()


@contextmanager
def _alone(directory: Path) -> Iterator[bool]:
    """Tell whether nobody else holds this lock on the directory; the system releases it when a process dies."""
    with (directory / ".lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        yield alone
