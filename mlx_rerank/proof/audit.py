"""The audit of a checkpoint: every operation of the models that it can become, without reading a weight."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_rerank.checkpoints.checkpoint import Checkpoint, load_model
from mlx_rerank.checkpoints.hub import resolve
from mlx_rerank.checkpoints.mapped import MappedEmbeddings, can_map
from mlx_rerank.device.names import parse_device
from mlx_rerank.device.thread import device_thread
from mlx_rerank.dtypes import NAMES, Report, parse_dtype, report

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
    that is a pytorch_model.bin is read. Of embeddings that can be mapped, which a padded batch is audited with as
    well, one row is.

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
    checkpoint = Checkpoint.open(resolve(model, revision=revision))
    return device_thread().submit(_audit, checkpoint, dtypes).result()


def _audit(checkpoint: Checkpoint, dtypes: Sequence[str]) -> list[Cell]:
    """Audit a checkpoint; in the device thread, so that no other model runs meanwhile."""
    tokens = min(_TOKENS, checkpoint.config.max_length)
    input_ids, mask = mx.zeros((2, tokens), mx.int32), mx.ones((2, tokens), mx.bool_)
    cells = []
    with mx.stream(parse_device(None)):
        for name in dtypes:
            dtype = parse_dtype(name)
            for packed in (True, False) if checkpoint.quantized else (False,):
                model = load_model(checkpoint, dtype, keep_quantized=packed, evaluate=False)
                for padded in (True, False):
                    found = report(model, dtype, input_ids, mask if padded else None)
                    cells.append(Cell(name, packed, False, padded, found))
                if can_map(checkpoint):
                    model = load_model(checkpoint, dtype, keep_quantized=packed, evaluate=False, words=False)
                    words = MappedEmbeddings.open(checkpoint, dtype)(np.zeros((2, tokens), dtype=np.int32))
                    cells.append(Cell(name, packed, True, True, report(model, dtype, input_ids, mask, words)))
    return cells
