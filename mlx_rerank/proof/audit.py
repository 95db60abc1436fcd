"""The audit of a checkpoint: every operation of the models that it can become, without reading a weight."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.mapped import MappedEmbeddings, can_map, inputs_of
from mlx_rerank.device import operations
from mlx_rerank.device.names import parse_device
from mlx_rerank.device.thread import device_thread
from mlx_rerank.dtypes import NAMES, Report, parse_dtype, report
from mlx_rerank.pairs.batching import Batch

_TOKENS = 16  # of the batch that is traced; no operation's dtype depends on it


@dataclass(frozen=True)
class Cell:
    """One way to run a checkpoint.

    Args:
        dtype: of the weights that are not packed.
        packed: whether packed weights stay packed, as on a GPU; False where there are none.
        mapped: whether the word embeddings stay in their file.
        padded: whether the batch has padding, and so a mask.
        report: what was found.
    """

    dtype: str
    packed: bool
    mapped: bool
    padded: bool
    report: Report


def audit_checkpoint(model: str, *, dtype: str | None = None, revision: str | None = None) -> list[Cell]:
    """Audit a checkpoint in a dtype, with and without padding, and both packed and unpacked where it is quantized.

    The models come from the same function as those that score, and only their weights are left unread. A checkpoint
    that is a pytorch_model.bin is read. If embeddings can be mapped, a padded batch is audited with them too; that
    reads one row.

    Args:
        model: an embedded model's name, a hub id, or a directory.
        dtype: "float16", "bfloat16" or "float32"; each of them if None.
        revision: branch, tag or commit of a hub model.

    Raises:
        CheckpointNotFoundError: the model's name leads nowhere.
        CheckpointError: its files cannot be used.
        InputError: the dtype is unknown.
        MissingDependencyError: the checkpoint needs torch to be read.
    """
    dtypes = NAMES if dtype is None else (dtype,)
    for name in dtypes:
        parse_dtype(name)
    checkpoint = Checkpoint.open(model, revision=revision)
    return device_thread().submit(_audit, checkpoint, checkpoint.encoder().frame.segments, dtypes).result()


def _audit(checkpoint: Checkpoint, segmented: bool, dtypes: Sequence[str]) -> list[Cell]:
    """Audit a checkpoint; in the device thread, so that no other model runs meanwhile."""
    size = 2, min(_TOKENS, checkpoint.shape.max_length)
    batch = Batch(np.zeros(size, np.int32), np.ones(size, bool), np.ones(size, bool) if segmented else None)
    cells = []
    with operations.on(parse_device(None)):
        for name in dtypes:
            dtype = parse_dtype(name)
            for packed in (True, False) if checkpoint.quantized else (False,):
                model = checkpoint.load(dtype, keep_quantized=packed, evaluate=False)
                for padded in (True, False):
                    given = batch if padded else batch._replace(attention_mask=None)
                    found = report(model, dtype, **inputs_of(given, checkpoint.shape, None))
                    cells.append(Cell(name, packed, False, padded, found))
                if can_map(checkpoint):
                    model = checkpoint.load(dtype, keep_quantized=packed, evaluate=False, words=False)
                    given = inputs_of(batch, checkpoint.shape, MappedEmbeddings.open(checkpoint, dtype))
                    cells.append(Cell(name, packed, True, True, report(model, dtype, **given)))
    return cells
