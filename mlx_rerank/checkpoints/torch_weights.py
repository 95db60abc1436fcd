"""The weights of a pytorch_model.bin."""

import zipfile
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from mlx_rerank.device.optional import imported
from mlx_rerank.errors import CheckpointError


class TorchWeights(MutableMapping[str, Any]):
    """The tensors of a pytorch_model.bin as numpy arrays, each made when it is asked for."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        """Wrap a state dict that torch has opened."""
        self._tensors = tensors

    def __getitem__(self, name: str) -> Any:
        """Return one tensor; bfloat16, which numpy lacks, as an MLX array."""
        tensor = self._tensors[name].detach()
        if str(tensor.dtype) != "torch.bfloat16":
            return tensor.numpy()
        import mlx.core as mx

        return mx.array(tensor.view(imported("torch").int16).numpy()).view(mx.bfloat16)

    def __setitem__(self, name: str, tensor: Any) -> None:
        """Add a torch tensor."""
        self._tensors[name] = tensor

    def __delitem__(self, name: str) -> None:
        """Let go of a tensor."""
        del self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._tensors)

    def __len__(self) -> int:
        """Count the tensors."""
        return len(self._tensors)


def read_torch_weights(path: Path) -> TorchWeights:
    """Open a pytorch_model.bin, memory-mapped, running no code that it may contain.

    Raises:
        MissingDependencyError: torch is not installed.
        CheckpointError: the file is damaged, or holds more than tensors.
    """
    torch = imported("torch")
    try:
        zipped = zipfile.is_zipfile(path)  # the format since torch 1.6; only it can be memory-mapped
        tensors = torch.load(path, map_location="cpu", mmap=zipped, weights_only=True)
        if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
            raise TypeError("it is not a dict of tensors")
    except Exception as error:  # unpickling fails in many ways
        raise CheckpointError(f"{path} cannot be read as plain tensors: {error}") from error
    return TorchWeights(tensors)
