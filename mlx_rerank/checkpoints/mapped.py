"""Word embeddings that stay in their file: only the rows that a batch needs are read.

The table is nearly half of a multilingual model, and a batch needs a few hundred rows of it. What has been read is in
the system's page cache, and can be dropped from there. Memory that is mapped to the file would do the same, but a file
that is cut short meanwhile would end the process.
"""

import json
import math
import os
import struct
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlx_rerank.checkpoints import weights
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.packing import Quantization, quantization_of
from mlx_rerank.checkpoints.tensors import open_tensors
from mlx_rerank.errors import ChangedCheckpointError, InputError, WeightsError
from mlx_rerank.models.shape import Shape, check_input_ids
from mlx_rerank.pairs.batching import Batch

EMBEDDINGS = ("resident", "mapped")
# Mapping costs a batch one to three milliseconds. Below this size a table is no larger than the activations of a batch,
# and leaving it out would save little; the tables of multilingual models, with 250,002 rows, are several times larger.
MAPPED_ABOVE = 64 * 2**20  # bytes
Inputs = dict[str, mx.array | None]  # what a model is called with, by name
_NUMPY = {
    mx.float32: np.float32,
    mx.float16: np.float16,
    mx.bfloat16: np.uint16,  # numpy has none
    mx.uint32: np.uint32,
    mx.uint8: np.uint8,
}


def can_map(checkpoint: Checkpoint) -> bool:
    """Tell whether a checkpoint has safetensors; a pytorch_model.bin cannot be mapped."""
    return bool(weights.safetensors_files(checkpoint.directory))


def table_bytes(checkpoint: Checkpoint, dtype: mx.Dtype, *, keep_quantized: bool) -> int:
    """Return the bytes of the word embeddings in a loaded model; arguments are those of `Checkpoint.load`."""
    if not (checkpoint.quantized and keep_quantized):
        return checkpoint.shape.vocab_size * checkpoint.shape.word_size * dtype.size
    tensors = open_tensors(checkpoint.directory)
    parts = [tensors[name] for name in checkpoint.table_names & tensors.keys()]
    return sum(p.size * (dtype.size if mx.issubdtype(p.dtype, mx.floating) else p.dtype.size) for p in parts)


def choose_embeddings(checkpoint: Checkpoint, dtype: mx.Dtype, *, keep_quantized: bool, wanted: str | None) -> str:
    """Return "resident" or "mapped": what is wanted or, if None, "mapped" for a table of more than `MAPPED_ABOVE`.

    Raises:
        InputError: the wanted value is neither, or the table cannot be mapped.
    """
    if wanted not in (None, *EMBEDDINGS):
        raise InputError(f"embeddings {wanted!r} is not one of {', '.join(EMBEDDINGS)}")
    mappable = can_map(checkpoint)
    if wanted == "mapped" and not mappable:
        raise InputError(
            f"{checkpoint.directory} has no safetensors, and a pytorch_model.bin cannot be mapped: write a directory "
            "that can with `mlx-rerank convert`, or use embeddings='resident'"
        )
    large = mappable and table_bytes(checkpoint, dtype, keep_quantized=keep_quantized) > MAPPED_ABOVE
    return ("mapped" if large else "resident") if wanted is None else wanted


class Rows:
    """A matrix in an open file, whose data stays even if the file is deleted or replaced, but not if it is overwritten.

    Args:
        path: of the file.
        offset: bytes before the first row.
        shape: of the matrix.
        dtype: of its numbers.
    """

    def __init__(self, path: Path, offset: int, shape: Sequence[int], dtype: mx.Dtype) -> None:
        """Open the file.

        Raises:
            OSError: it cannot be opened.
        """
        self.shape, self.dtype = tuple(shape), dtype
        self._path, self._offset = path, offset
        self._bytes = dtype.size * math.prod(self.shape[1:])  # of a row
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._written = self._last_written()

    def take(self, ids: np.ndarray) -> np.ndarray:
        """Return rows by their numbers, in numpy's dtype of that size.

        Raises:
            ChangedCheckpointError: the file was overwritten.
        """
        rows = b"".join(os.pread(self._file, self._bytes, self._offset + self._bytes * i) for i in ids.tolist())
        if self.overwritten:
            raise ChangedCheckpointError(f"{self._path} was overwritten while it was in use: load the model again")
        return np.frombuffer(rows, _NUMPY[self.dtype]).reshape(len(ids), *self.shape[1:])

    @property
    def overwritten(self) -> bool:
        """Whether the file was written to since it was opened."""
        return self._last_written() != self._written

    def _last_written(self) -> tuple[int, int]:
        """Return the file's size and the time of the last change of its bytes. Its deletion changes neither."""
        status = os.fstat(self._file)
        return status.st_size, status.st_mtime_ns


class MappedEmbeddings:
    """A table of word embeddings in a file."""

    def __init__(self, parts: Mapping[str, Rows], packing: Quantization | None, dtype: mx.Dtype) -> None:
        """Take over the parts.

        Args:
            parts: "weight" and, of a packed table, "scales" and perhaps "biases".
            packing: how the table is packed, if it is.
            dtype: of the words.
        """
        self._parts = dict(parts)
        self._packing = packing
        self._dtype = dtype

    @classmethod
    def open(cls, checkpoint: Checkpoint, dtype: mx.Dtype) -> "MappedEmbeddings":
        """Open the table of a checkpoint; only the file's header is read.

        Args:
            checkpoint: a directory with safetensors, Hugging Face's or a converted one.
            dtype: that the words are to have, that of the model.

        Raises:
            CheckpointError: a file is damaged, or is not the one that was opened.
            WeightsError: the table is missing, or not what config.json says.
        """
        with checkpoint.reading():
            names = sorted(checkpoint.table_names) if checkpoint.converted else [_words_source(checkpoint)]
            found = _find(checkpoint.directory, names)
        parts = {name.rpartition(".")[2]: part for name, part in found.items()}
        packing = quantization_of(checkpoint.raw, checkpoint.family.words) if "scales" in parts else None
        table = cls(parts, packing, dtype)
        table._require_fit(checkpoint)
        return table

    def __call__(self, input_ids: np.ndarray) -> mx.array:
        """Return the words of a batch, lazily, the same bits that a table in memory gives.

        Each distinct row is read, uploaded and unpacked once. Reading a row for every token instead took as long or,
        with packed or cast tables, up to nine times as long.

        Args:
            input_ids: integers [B, L], within the vocabulary.

        Returns:
            [B, L, D] in the table's dtype.

        Raises:
            ChangedCheckpointError: the file was overwritten.
        """
        distinct, places = np.unique(input_ids, return_inverse=True)
        rows = self._unpacked({kind: self._rows(kind, distinct) for kind in self._parts})
        return rows[mx.array(places.reshape(input_ids.shape).astype(np.int32))]

    @property
    def overwritten(self) -> bool:
        """Whether the file was written to since it was opened."""
        return any(part.overwritten for part in self._parts.values())

    def _rows(self, kind: str, ids: np.ndarray) -> mx.array:
        """Return rows of a part, floating ones in the table's dtype."""
        part = self._parts[kind]
        rows = mx.array(part.take(ids)).view(part.dtype)
        return rows.astype(self._dtype) if mx.issubdtype(part.dtype, mx.floating) else rows

    def _unpacked(self, rows: Mapping[str, mx.array]) -> mx.array:
        """Return rows as they are in a table that is not packed."""
        if self._packing is None:
            return rows["weight"]
        packing = vars(self._packing)
        return mx.dequantize(rows["weight"], rows["scales"], rows.get("biases"), **packing, dtype=self._dtype)

    def _require_fit(self, checkpoint: Checkpoint) -> None:
        """Raise WeightsError unless the table has the model's rows, and its words have the model's width."""
        shape, allowed = checkpoint.shape, weights.FLOATS if self._packing is None else (mx.uint32,)
        for kind, part in self._parts.items():
            if kind == "weight" and part.dtype not in allowed:
                raise WeightsError(f"the word embeddings are {part.dtype}, not {' or '.join(map(str, allowed))}")
            if len(part.shape) != 2 or part.shape[0] != shape.vocab_size:
                raise WeightsError(
                    f"the word embeddings' {kind} has shape {list(part.shape)}; config.json asks for "
                    f"{shape.vocab_size} rows"
                )
        try:
            width = self(np.zeros((1, 1), dtype=np.int32)).shape[-1]
        except (ValueError, RuntimeError) as error:
            raise WeightsError(
                f"the word embeddings are not packed as config.json says ({self._packing}): {error}"
            ) from error
        if width != shape.word_size:
            raise WeightsError(f"the word embeddings are {width} wide; config.json asks for {shape.word_size}")


def _words_source(checkpoint: Checkpoint) -> str:
    """Return the name of the table in a Hugging Face checkpoint."""
    family = checkpoint.family
    rules = family.table(checkpoint.shape)
    name = next(rule.sources[0].name for rule in rules if rule.target == f"{family.words}.weight")
    return family.names(weights.stored_shapes(weights.safetensors_files(checkpoint.directory))).get(name, name)


def _find(directory: Path, names: list[str]) -> dict[str, Rows]:
    """Return the tensors of these names that a directory has; one of them must be a weight."""
    found = {}
    for path in weights.safetensors_files(directory):
        tensors = weights.read_safetensors(path)  # checks header and length, and knows every dtype
        for name in (name for name in names if name in tensors):
            stored = tensors[name].dtype
            if stored not in _NUMPY:
                raise WeightsError(f"{name} is {stored}; only float16, bfloat16 and float32 weights can be read")
            found[name] = Rows(path, _offset(path, name), tensors[name].shape, stored)
    if not any(name.endswith(".weight") for name in found):
        raise WeightsError(f"{directory} has no word embeddings")
    return found


def _offset(path: Path, name: str) -> int:
    """Return where a tensor's bytes begin in a safetensors file that has been checked.

    Source: the safetensors format: a length of 8 bytes, a JSON header of that length, then the data.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return 8 + length + json.loads(file.read(length))[name]["data_offsets"][0]


def weights_bytes(checkpoint: Checkpoint, dtype: mx.Dtype, keep_quantized: bool) -> dict[str, int]:
    """Return the bytes of the loaded weights, from their shapes, with the embeddings in memory and in their file.

    Args:
        checkpoint: whose weights they are.
        dtype: of all weights that are not packed.
        keep_quantized: whether packed weights stay packed.

    Returns:
        Bytes under "resident" and, where the embeddings can be left in their file, under "mapped".
    """
    model = checkpoint.load(dtype, keep_quantized=keep_quantized, evaluate=False)
    parameters: Any = tree_flatten(model.parameters())
    whole = sum(value.nbytes for _, value in parameters)
    table = table_bytes(checkpoint, dtype, keep_quantized=keep_quantized)
    return {"resident": whole} | ({"mapped": whole - table} if can_map(checkpoint) else {})


def inputs_of(batch: Batch, shape: Shape, table: MappedEmbeddings | None) -> Inputs:
    """Return a model's arguments for a batch, by name; call this in the device thread.

    Every batch comes through here on its way to a model, whoever runs it, so its ids are checked here.

    Args:
        batch: the rows.
        shape: of the model.
        table: the word embeddings, where the model has none of its own.

    Raises:
        InputError: token ids outside the vocabulary, or more tokens than the model has positions.
    """
    check_input_ids(batch.input_ids, shape)
    given = {name: None if array is None else mx.array(array) for name, array in batch._asdict().items()}
    return given | {"words": None if table is None else table(batch.input_ids)}
