"""Who takes part: each contender with what it needs, the weights it reads, and where and in which dtype it computes."""

import importlib.util
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mlx_rerank.errors import InputError

OWN, REFERENCE, ONNX = "mlx-rerank", "PyTorch reference", "onnxruntime"
_NEEDS = {  # modules of each library
    "mlx_rerank": (),
    "flag_embedding": ("FlagEmbedding", "torch"),
    "sentence_transformers": ("sentence_transformers", "torch"),
    "reference": ("torch", "transformers"),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript", "torch", "transformers"),
}
_DISTRIBUTIONS = (
    "mlx-rerank", "mlx", "tokenizers", "numpy", "torch", "transformers", "FlagEmbedding", "sentence-transformers",
    "onnxruntime",
)  # fmt: skip


@dataclass(frozen=True)
class Contender:
    """One way to score the pairs, in a form that travels to another process.

    Args:
        name: as tables show it.
        library: a key of the worker's loaders.
        directory: of the checkpoint.
        max_length: most tokens of a pair.
        dtype: of weights and arithmetic.
        device: "cpu", or "gpu" for MLX and "mps" for torch.
        options: further arguments of the library's constructor.
    """

    name: str
    library: str
    directory: str
    max_length: int
    dtype: str = "float32"
    device: str = "cpu"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """Modules that this needs and that are not installed."""
        return [name for name in _NEEDS[self.library] if importlib.util.find_spec(name) is None]


def roster(directory: str, max_length: int, device: str, graph: str) -> list[Contender]:
    """Return everybody, installed or not: float32 on a CPU; on a GPU also float16, and the torch peers on it too.

    Args:
        directory: of a Hugging Face checkpoint, the same for all.
        max_length: most tokens of a pair.
        device: "cpu" or "gpu", as MLX calls it.
        graph: where the graph for onnxruntime is, or is to be written.
    """
    dtypes = ("float32",) if device == "cpu" else ("float32", "float16")
    names = {"mlx_rerank": OWN, "flag_embedding": "FlagEmbedding", "sentence_transformers": "sentence-transformers"}
    found = []
    for library, name in names.items():
        place = device if library == "mlx_rerank" or device == "cpu" else "mps"
        for dtype in dtypes:
            label = name if dtype == "float32" else f"{name} {dtype}"
            found.append(Contender(label, library, directory, max_length, dtype, place))
    onnx = Contender(ONNX, "onnxruntime", directory, max_length, options={"graph": graph})
    return [*found, onnx, Contender(REFERENCE, "reference", directory, max_length)]  # these on the CPU everywhere


def choose(contenders: Sequence[Contender], names: Sequence[str]) -> list[Contender]:
    """Return the contenders called so; all if no name is given.

    Raises:
        InputError: nobody has that name.
    """
    known = [contender.name for contender in contenders]
    for name in names:
        if name not in known:
            raise InputError(f"there is no contender {name!r}; there are {', '.join(known)}")
    return [contender for contender in contenders if not names or contender.name in names]


def versions() -> dict[str, str]:
    """Return the version of every library that is installed, by its name."""
    found = {}
    for name in _DISTRIBUTIONS:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
