"""Weights on disk: the strict readers, and the writer.

A Hugging Face checkpoint is turned into this package's parameters one at a time, by a table of its family that says for
each parameter which tensors it is made of. A tensor that no rule asks for is an error, and so is a missing one.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from safetensors import SafetensorError, safe_open

from mlx_rerank.checkpoints.config import read_object
from mlx_rerank.checkpoints.files import INDEX_FILE, TORCH_INDEX_FILE, TORCH_WEIGHTS_FILE, WEIGHTS_FILE
from mlx_rerank.checkpoints.fit import require_names
from mlx_rerank.checkpoints.packing import quantization_of
from mlx_rerank.checkpoints.reading import require_plain
from mlx_rerank.device.arrays import telling
from mlx_rerank.errors import CheckpointError, WeightsError
from mlx_rerank.models.family import Family
from mlx_rerank.models.shape import Shape

FLOATS = (mx.float16, mx.bfloat16, mx.float32)


def port(
    tensors: MutableMapping[str, Any], family: Family, shape: Shape, dtype: mx.Dtype
) -> Iterator[tuple[str, mx.array]]:
    """Yield this package's parameters, lazily, from the tensors of a Hugging Face checkpoint.

    Args:
        tensors: lazy tensors by their Hugging Face names. Each is taken out when it is last used, because a reference
            to a lazy array keeps the data that the array has read.
        family: whose table says what each parameter is made of.
        shape: of the model, which the tensors have (`Checkpoint.tensors`).
        dtype: what every parameter is cast to but those that stay float32.

    Raises:
        WeightsError: a tensor is not of a floating dtype.
    """
    table, names = family.table(shape), family.names(tensors)
    uses = Counter(source.name for rule in table for source in rule.sources)
    for rule in table:
        uses.subtract(source.name for source in rule.sources)
        parts = [  # in one step, so that no name keeps what a tensor has read
            mx.array(tensors[names[s.name]] if uses[s.name] else tensors.pop(names[s.name])) for s in rule.sources
        ]
        for source, part in zip(rule.sources, parts, strict=True):
            if part.dtype not in FLOATS:
                raise WeightsError(
                    f"{source.name} is {part.dtype}; only float16, bfloat16 and float32 weights can be read"
                )
        yield rule.target, rule.how.join(*parts).astype(mx.float32 if rule.float32 else dtype)


def evaluate(parameters: Iterable[tuple[str, mx.array]]) -> Iterator[tuple[str, mx.array]]:
    """Evaluate lazy parameters one at a time, so that never more than one is held beside its sources.

    Raises:
        WeightsError: a value is beyond float16's range, and has become infinite.
        DeviceError: the device could not compute it.
    """
    for name, value in parameters:
        with telling():
            mx.eval(value)
            infinite = value.dtype == mx.float16 and _has_infinity(value)
        if infinite:
            raise WeightsError(f"{name} has values beyond float16's range of 65504: use dtype bfloat16 or float32")
        yield name, value


def safetensors_files(directory: Path) -> list[Path]:
    """Return the safetensors of a checkpoint directory: one file, or the shards of its index, or none.

    Raises:
        CheckpointError: the index is damaged.
    """
    return _files(directory, WEIGHTS_FILE, INDEX_FILE)


def torch_files(directory: Path) -> list[Path]:
    """Return the files that torch saved, as `safetensors_files` does.

    Raises:
        CheckpointError: the index is damaged.
    """
    return _files(directory, TORCH_WEIGHTS_FILE, TORCH_INDEX_FILE)


def _files(directory: Path, whole: str, parts: str) -> list[Path]:
    """Return a file, or else the shards that an index names, or none."""
    index = directory / parts
    if (directory / whole).exists():
        return [directory / whole]
    found = read_object(index)
    if found is None:
        return []
    try:
        shards = sorted(set(found["weight_map"].values()))
        if not shards or any(Path(shard).name != shard for shard in shards):
            raise ValueError("a shard is not a file name")  # a path could lead anywhere
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} is not an index of shards: {error!r}") from error
    return [directory / shard for shard in shards]


def stored_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in safetensors files, by name; only the headers are read.

    Raises:
        CheckpointError: a file is damaged, or not there, or two of them hold a tensor of one name.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        with _opened(path) as file:
            own = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        if twice := sorted(own.keys() & shapes.keys()):
            raise CheckpointError(f"{path} holds {twice[0]}, which another shard holds too: download it again")
        shapes |= own
    return shapes


def stored_dtypes(files: Iterable[Path]) -> set[str]:
    """Return the dtypes of the floating tensors in safetensors files; only the headers are read.

    Raises:
        CheckpointError: a file is damaged, or not there.
    """
    names = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
    found: set[str] = set()
    for path in files:
        with _opened(path) as file:
            found |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return {names[dtype] for dtype in found & names.keys()}


def read_safetensors(path: Path) -> dict[str, mx.array]:
    """Return the lazy arrays of a safetensors file, by name.

    Raises:
        CheckpointError: the file is damaged or cut short, or not there.
    """
    with _opened(path):  # MLX itself reads past the end of a cut file without an error
        loaded = mx.load(str(path))
    assert isinstance(loaded, dict)
    return loaded


def load_into(model: nn.Module, weights: Mapping[str, mx.array], float32: Set[str] = frozenset()) -> None:
    """Set every parameter of a model, refusing anything but an exact match of names, shapes and dtype.

    Args:
        model: whose parameters are set.
        weights: all of them, by name.
        float32: names of those that stay float32 whatever the model's dtype.

    Raises:
        WeightsError: a parameter is missing, unexpected, misshapen, or of another dtype than the rest.
    """
    parameters = dict(tree_flatten(model.parameters()))
    require_names(weights.keys(), parameters.keys())
    floats = {
        name: value.dtype
        for name, value in weights.items()
        if mx.issubdtype(value.dtype, mx.floating) and name not in float32
    }
    dtype = next(iter(floats.values()), None)
    for name, value in weights.items():
        if value.shape != parameters[name].shape:
            raise WeightsError(f"{name} has shape {list(value.shape)}; the model's is {list(parameters[name].shape)}")
        if floats.get(name, dtype) != dtype:
            raise WeightsError(f"{name} is {value.dtype} among weights of {dtype}: arithmetic would leave that dtype")
    model.load_weights(list(weights.items()))
    model.eval()


def unpack(
    weights: MutableMapping[str, mx.array],
    config: Mapping[str, Any],
    dtype: mx.Dtype,
    float32: Set[str] = frozenset(),
) -> Iterator[tuple[str, mx.array]]:
    """Yield the parameters of a converted checkpoint, lazily, packed ones dequantized.

    Args:
        weights: lazy parameters as the converter wrote them. Each is taken out when it is used; see `port`.
        config: the checkpoint's config.json.
        dtype: what every parameter is cast to.
        float32: names of those that stay float32.

    Raises:
        CheckpointError: config.json does not say how a parameter is packed.
        WeightsError: config.json contradicts the weights.
    """
    names = set(weights)
    for name in sorted(names):
        path, _, kind = name.rpartition(".")
        if kind in ("scales", "biases") and path + ".weight" in names:
            continue
        value = weights.pop(name)
        packed = kind == "weight" and path + ".scales" in names
        if value.dtype not in ((mx.uint32,) if packed else FLOATS):
            raise WeightsError(f"{name} is {value.dtype}, which is not what the converter writes: convert it again")
        if packed:
            packing = quantization_of(config, path)
            scales, biases = weights.pop(path + ".scales"), weights.pop(path + ".biases", None)
            if biases is not None:  # in a wider dtype, scale * q + bias is rounded less
                scales, biases = scales.astype(dtype), biases.astype(dtype)
            try:
                value = mx.dequantize(
                    value, scales, biases, packing.group_size, packing.bits, packing.mode, dtype=dtype
                )
            except (ValueError, RuntimeError) as error:
                raise WeightsError(f"{name} is not packed as config.json says ({packing}): {error}") from error
        yield name, value.astype(mx.float32 if name in float32 else dtype)


def cast(
    weights: MutableMapping[str, mx.array], dtype: mx.Dtype, float32: Set[str] = frozenset()
) -> Iterator[tuple[str, mx.array]]:
    """Yield parameters, taking each out, lazily; floating ones (the scales of packed ones too) in the given dtype.

    Args:
        weights: by name.
        dtype: of all but those that stay float32.
        float32: names of these.
    """
    for name in sorted(weights):
        value, own = weights.pop(name), mx.float32 if name in float32 else dtype
        yield name, value.astype(own) if mx.issubdtype(value.dtype, mx.floating) else value


def save(path: Path, model: nn.Module) -> None:
    """Evaluate a model's parameters, one at a time, and write them to one safetensors file.

    Raises:
        OSError: the disk is full, or the file cannot be written.
        WeightsError: a value is beyond float16's range.
    """
    parameters = dict(evaluate(tree_flatten(model.parameters())))  # pyright: ignore[reportArgumentType]
    try:
        mx.save_safetensors(str(path), parameters, metadata={"format": "mlx"})
    except RuntimeError as error:  # what MLX raises then
        raise OSError(str(error)) from error


def _has_infinity(value: mx.array) -> bool:
    """Tell whether a float16 array has an infinity, and no NaN.

    Infinities have the largest bit patterns of each sign, except for NaN. On a CPU `mx.isinf` takes some 25 times as
    long, and arrays as large again.
    """
    return value.view(mx.int16).max().item() == 0x7C00 or value.view(mx.uint16).max().item() == 0xFC00


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file, and raise CheckpointError if opening or reading it fails."""
    try:
        require_plain(path)
        with safe_open(path, framework="numpy") as file:
            yield file
    except FileNotFoundError:
        raise CheckpointError(f"{path} is named by the index but is not there: download the checkpoint again") from None
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or cut short ({error}): download the checkpoint again") from error
