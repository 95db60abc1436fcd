"""A Hugging Face checkpoint as this package's model: in memory, and as the directory that it is written to."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_rerank.checkpoints import hub, weights
from mlx_rerank.checkpoints.card import model_card
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.config import CONVERSION_KEY
from mlx_rerank.checkpoints.writing import write_model
from mlx_rerank.dtypes import parse_dtype
from mlx_rerank.models.layers import Model
from mlx_rerank.models.shape import Shape
from mlx_rerank.pairs.frames import Frame
from mlx_rerank.version import __version__

Parameters = Iterable[tuple[str, mx.array]]
_DTYPE_KEYS = ("torch_dtype", "dtype")  # what transformers calls it, before and since version 5


def converted(
    source: Checkpoint,
    dtype: mx.Dtype,
    *,
    shape: Shape | None = None,
    select: Callable[[Parameters], Parameters] | None = None,
    evaluate: bool = False,
) -> Model:
    """Return the model of a Hugging Face checkpoint, its weights renamed, fused and cast.

    Args:
        source: a Hugging Face directory.
        dtype: of all weights.
        shape: of the model, where it is not the source's.
        select: turns the source's weights into those of that shape.
        evaluate: read the weights now; otherwise each is read when it is first used.
    """
    parameters = weights.port(source.tensors(), source.family, source.shape, dtype)
    if select:
        parameters = select(parameters)
    model = source.family.build(shape or source.shape)
    given = dict(weights.evaluate(parameters) if evaluate else parameters)
    weights.load_into(model, given, source.family.float32(source.shape))
    return model


def record(checkpoint: Checkpoint, frame: Frame, source: str, dtype: str) -> dict[str, Any]:
    """Return the config.json to write: the source's, with the dtype and what was done.

    Args:
        checkpoint: the source.
        frame: what surrounds two texts in a row.
        source: what it was called.
        dtype: of all weights that are not packed.
    """
    config = {key: value for key, value in checkpoint.raw.items() if key not in ("_name_or_path", *_DTYPE_KEYS)}
    return config | {
        "dtype": dtype,
        CONVERSION_KEY: {
            "version": __version__,
            "source": hub.public_name(source),
            "revision": hub.commit_of(checkpoint.directory),
            **checkpoint.family.record(frame),
        },
    }


def write_converted(checkpoint: Checkpoint, target: Path, dtype: str) -> None:
    """Write a Hugging Face checkpoint as a directory that loads without being converted again.

    Args:
        checkpoint: the source.
        target: the directory, which does not exist.
        dtype: of all weights.

    Raises:
        CheckpointError: the source's weights cannot be used.
        OutputError: the target cannot be written.
    """
    config = record(checkpoint, checkpoint.encoder().frame, str(checkpoint.directory), dtype)
    card = model_card(config, checkpoint.shape.max_length, checkpoint.directory / "README.md", name=target.name)
    model = converted(checkpoint, parse_dtype(dtype))
    write_model(target, model, config, checkpoint, {"README.md": card})
