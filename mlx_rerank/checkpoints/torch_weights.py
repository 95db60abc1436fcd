"""The weights of a pytorch_model.bin."""

import zipfile
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from mlx_rerank.checkpoints.reading import require_plain
from mlx_rerank.device.optional import imported, require_at_least
from mlx_rerank.errors import CheckpointError, WeightsError


class TorchWeights(MutableMapping[str, Any]):
    """The tensors of a pytorch_model.bin as numpy arrays, each made when it is asked for."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        """Wrap a state dict that torch has opened."""
        self._tensors = tensors

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all tensors, by name."""
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def __getitem__(self, name: str) -> Any:
        """Return one tensor; bfloat16, which numpy lacks, as an MLX array.

        Raises:
            WeightsError: it is of another dtype that numpy lacks.
        """
        tensor = self._tensors[name].detach()
        if str(tensor.dtype) != "torch.bfloat16":
            try:
                return tensor.numpy()
            except TypeError as error:
                message = f"{name} is {tensor.dtype}; only float16, bfloat16 and float32 weights can be read"
                raise WeightsError(message) from error
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


def read_torch_weights(paths: Sequence[Path]) -> TorchWeights:
    """Open a pytorch_model.bin, or its shards, memory-mapped, running no code that they may contain.

    Raises:
        MissingDependencyError: as `_read`.
        CheckpointError: as `_read`; or two shards hold a tensor of one name.
    """
    tensors: dict[str, Any] = {}
    for path in paths:
        own = _read(path)
        if twice := sorted(own.keys() & tensors.keys()):
            raise CheckpointError(f"{path} holds {twice[0]}, which another shard holds too: download it again")
        tensors |= own
    return TorchWeights(tensors)


def _read(path: Path) -> dict[str, Any]:
    """Return the tensors of a file.

    Raises:
        MissingDependencyError: torch is not installed, or a version that such a file may make run code.
        CheckpointError: the file is damaged, or holds more than tensors.
    """
    torch = imported("torch")
    require_at_least("torch", "2.10", f"{path} is not opened: earlier versions may run code that is in it")
    try:
        require_plain(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is named by the index but is not there: download the checkpoint again") from None
    try:
        zipped = zipfile.is_zipfile(path)  # the format since torch 1.6; only it can be memory-mapped
        if zipped:
            _require_stored(path)
        tensors = torch.load(path, map_location="cpu", mmap=zipped, weights_only=True)
        if not isinstance(tensors, dict):
            raise TypeError(f"it holds a {type(tensors).__name__}, not a dict of tensors")
        for name, tensor in tensors.items():
            _require_whole(torch, name, tensor)
    except Exception as error:  # unpickling fails in many ways
        raise CheckpointError(f"{path} cannot be read as plain tensors: {error}") from error
    return tensors


def _require_stored(path: Path) -> None:
    """Refuse a file whose parts are packed, which torch never writes: a few bytes could become any number."""
    with zipfile.ZipFile(path) as file:
        if any(part.compress_type != zipfile.ZIP_STORED for part in file.infolist()):
            raise ValueError("it is compressed")


def _require_whole(torch: Any, name: object, tensor: Any) -> None:
    """Refuse what is no plain tensor with a number of its own in the file for each of its entries."""
    if not isinstance(name, str) or not torch.is_tensor(tensor):
        raise TypeError(f"it is not a dict of tensors: {name!r:.40} is a {type(tensor).__name__}")
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise TypeError(f"{name} is not a plain tensor")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{name} of shape {list(tensor.shape)} has fewer numbers in the file")
