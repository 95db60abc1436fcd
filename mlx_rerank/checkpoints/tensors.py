"""The tensors of a checkpoint's directory, whichever files they are in."""

from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from mlx_rerank.checkpoints import weights
from mlx_rerank.checkpoints.files import TORCH_WEIGHTS_FILE, WEIGHTS_FILE
from mlx_rerank.checkpoints.fit import Shapes
from mlx_rerank.checkpoints.modules import tensors_of_modules
from mlx_rerank.checkpoints.torch_weights import TorchWeights, read_torch_weights
from mlx_rerank.checkpoints.unread import instead
from mlx_rerank.errors import CheckpointError


def open_tensors(directory: Path) -> MutableMapping[str, Any]:
    """Return a directory's tensors by name, each read when it is used.

    Raises:
        CheckpointError: there are none, or they are damaged.
        MissingDependencyError: there is only a pytorch_model.bin, and torch is not installed.
    """
    files = weights.safetensors_files(directory)
    if files:
        tensors = {name: tensor for path in files for name, tensor in weights.read_safetensors(path).items()}
        return tensors | tensors_of_modules(directory)
    if files := weights.torch_files(directory):
        return read_torch_weights(files)
    raise CheckpointError(
        f"{directory} holds no {WEIGHTS_FILE}, no {TORCH_WEIGHTS_FILE} and no index of shards{instead(directory)}"
    )


def shapes_of(tensors: Mapping[str, Any]) -> Shapes:
    """Return the shapes of a directory's tensors, by name; nothing is read."""
    if isinstance(tensors, TorchWeights):
        return tensors.shapes
    return {name: tensor.shape for name, tensor in tensors.items()}
