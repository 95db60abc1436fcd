"""A checkpoint whose tensors have other names than transformers' class gives them, or are stacked otherwise."""

import mlx.core as mx
import numpy as np

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.device.arrays import to_numpy


def is_renamed(checkpoint: Checkpoint) -> bool:
    """Tell whether transformers' class would not find all tensors of a checkpoint of this family."""
    return any(rule.restored is not None for rule in checkpoint.family.table(checkpoint.shape))


def state_dict(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Return the float32 tensors of a checkpoint that is not converted, by the names that transformers has for them.

    A rule that restores more tensors than it has sources has one source, in which they are stacked.

    Raises:
        CheckpointError: the weights cannot be read.
        WeightsError: they do not match the shape in config.json.
    """
    tensors, state = checkpoint.tensors(), {}
    for rule in checkpoint.family.table(checkpoint.shape):
        values = [_float32(tensors.pop(source.name)) for source in rule.sources]
        names, shapes = zip(*(rule.restored or rule.sources), strict=True)
        if len(names) > len(values):
            values = rule.how.separate(values[0], shapes)
        state |= zip(names, values, strict=True)
    return state


def _float32(tensor: object) -> np.ndarray:
    """Return a tensor of MLX or numpy as float32 numbers; numpy has no bfloat16."""
    return to_numpy(mx.array(tensor).astype(mx.float32, stream=mx.cpu))  # pyright: ignore[reportArgumentType]
