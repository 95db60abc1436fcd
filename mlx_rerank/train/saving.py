"""A trained model as a directory like any that the converter writes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from mlx_rerank.checkpoints import hub, weights
from mlx_rerank.checkpoints.card import model_card
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.config import CONVERSION_KEY
from mlx_rerank.checkpoints.packing import quantization_of
from mlx_rerank.checkpoints.tensors import open_tensors
from mlx_rerank.checkpoints.writing import write_model
from mlx_rerank.convert.quantize import Recipe, describe_recipe, quantize
from mlx_rerank.train.learner import Arrays, Learner
from mlx_rerank.version import __version__

_DROPPED = ("_name_or_path", "torch_dtype", "dtype", "quantization", "quantization_config", CONVERSION_KEY)


def save_trained(
    target: Path, checkpoint: Checkpoint, source: str, learner: Learner, dtype: mx.Dtype, record: Mapping[str, Any]
) -> None:
    """Write the directory: the source's weights with the trained ones in their place, packed as the source is.

    Args:
        target: the directory to write.
        checkpoint: the source.
        source: what it was called.
        learner: at the end of the run.
        dtype: of what is not packed.
        record: of the training run, for config.json and the model card.

    Raises:
        OutputError: it cannot be written.
        WeightsError: a trained weight is beyond float16's range.
    """
    recipe, words = _recipe(checkpoint), checkpoint.family.words
    model = checkpoint.load(mx.float32, keep_quantized=False, evaluate=False)
    parameters: Arrays = dict(tree_flatten(model.parameters()))  # pyright: ignore[reportArgumentType]
    trained = learner.weights() | {name: parameters[name] + added for name, added in learner.updates().items()}
    model.update(
        tree_unflatten(list(weights.cast(parameters | trained, dtype, checkpoint.family.float32(checkpoint.shape))))
    )
    done = dict(checkpoint.raw.get(CONVERSION_KEY, {}))
    config = {key: value for key, value in checkpoint.raw.items() if key not in _DROPPED}
    config |= {
        "dtype": str(dtype).rpartition(".")[2],
        CONVERSION_KEY: {
            "version": __version__,
            "source": done.get("source", hub.public_name(source)),
            "revision": done.get("revision", hub.commit_of(checkpoint.directory)),
            **checkpoint.family.record(checkpoint.encoder().frame),
            "training": dict(record),
        }
        | {key: done[key] for key in ("vocabulary",) if key in done},
    }
    if recipe:
        config[CONVERSION_KEY]["packing"] = describe_recipe(recipe, words)
        config = quantize(model, config, recipe, words)
        model.update(tree_unflatten(list(_untouched(checkpoint, recipe, trained, dtype))))
    card = model_card(config, checkpoint.shape.max_length, checkpoint.directory / "README.md", name=target.name)
    write_model(target, model, config, checkpoint, {"README.md": card})


def _untouched(
    checkpoint: Checkpoint, recipe: Recipe, trained: Arrays, dtype: mx.Dtype
) -> Iterator[tuple[str, mx.array]]:
    """Yield unchanged the packed weights that were not trained: packing them again would change some."""
    tensors = open_tensors(checkpoint.directory)
    modules = {path for path in recipe if f"{path}.weight" not in trained}
    return weights.cast({name: value for name, value in tensors.items() if name.rpartition(".")[0] in modules}, dtype)


def _recipe(checkpoint: Checkpoint) -> Recipe:
    """Return how the weights of a checkpoint are packed."""
    if not checkpoint.quantized:
        return {}
    names = open_tensors(checkpoint.directory)
    packed = sorted(name.removesuffix(".scales") for name in names if name.endswith(".scales"))
    return {path: quantization_of(checkpoint.raw, path) for path in packed}
