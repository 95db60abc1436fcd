"""A checkpoint directory, Hugging Face's or this package's own, and the model in it."""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rerank.checkpoints import weights
from mlx_rerank.checkpoints.config import ModelConfig, is_converted, read_config
from mlx_rerank.checkpoints.packing import quantization_of
from mlx_rerank.checkpoints.torch_weights import read_torch_weights
from mlx_rerank.errors import CheckpointError
from mlx_rerank.models import REGISTRY
from mlx_rerank.models.xlm_roberta import CrossEncoder

TABLE_NAMES = frozenset(f"{weights.WORDS}.{kind}" for kind in ("weight", "scales", "biases"))  # the last two if packed
TORCH_WEIGHTS_FILE = "pytorch_model.bin"


@dataclass(frozen=True)
class Checkpoint:
    """A directory whose config.json has been read and found usable.

    Args:
        directory: where the files are.
        raw: config.json as it stands.
        config: the model's shape.
        converted: whether this package's converter wrote it.
    """

    directory: Path
    raw: Mapping[str, Any]
    config: ModelConfig
    converted: bool

    @classmethod
    def open(cls, directory: Path) -> "Checkpoint":
        """Read a directory's config.json.

        Raises:
            CheckpointError: it cannot be read, or contradicts itself.
            UnsupportedModelError: it describes a model that this package does not run.
        """
        raw = read_config(directory)
        return cls(directory, raw, ModelConfig.from_dict(raw), is_converted(raw))

    @property
    def quantized(self) -> bool:
        """Whether some weights are packed to fewer bits than a dtype's."""
        return "quantization" in self.raw

    def fingerprint(self, digest: Callable[[Path], str]) -> str:
        """Return a hash of everything on disk that this checkpoint's logits depend on.

        Args:
            digest: gives the hash, of one length, of a file's bytes.

        Raises:
            CheckpointError: a file is not there, or the index of the weights is damaged.
        """
        weight_files = weights.safetensors_files(self.directory) or [self.directory / TORCH_WEIGHTS_FILE]
        files = [self.directory / "config.json", self.directory / "tokenizer.json", *weight_files]
        try:
            return sha256("".join(map(digest, files)).encode()).hexdigest()
        except OSError as error:
            raise CheckpointError(f"{self.directory} cannot be read: {error}") from error


def load_model(
    checkpoint: Checkpoint, dtype: mx.Dtype, *, keep_quantized: bool, evaluate: bool = True, words: bool = True
) -> CrossEncoder:
    """Read a checkpoint's weights into a model, one tensor at a time, every one in the same dtype.

    Args:
        checkpoint: an opened directory; a Hugging Face one is converted on the way.
        dtype: of all weights that are not packed.
        keep_quantized: leave packed weights packed, for devices with fast quantized products. Otherwise they are
            dequantized here, once.
        evaluate: read and check the weights now. Otherwise each is read when it is first used, and never by an audit,
            except from a pytorch_model.bin.
        words: load the word embeddings too. Otherwise they are not read, and the model is to be given the words of
            each batch (mapped.py).

    Raises:
        CheckpointError: the weights cannot be read.
        WeightsError: they do not match the shape in config.json.
        MissingDependencyError: they need torch to be read, and it is not installed.
    """
    model = REGISTRY[checkpoint.raw["model_type"]](checkpoint.config)
    tensors = open_tensors(checkpoint.directory)
    absent = frozenset() if words else TABLE_NAMES
    if not words:
        del model.embeddings.word_embeddings
    if not checkpoint.converted:
        parameters = weights.port(tensors, checkpoint.config, dtype)
    elif checkpoint.quantized and keep_quantized:
        nn.quantize(model, class_predicate=lambda path, _: _packing(path, tensors, checkpoint.raw))
        parameters = weights.cast(tensors, dtype)
    else:
        parameters = weights.unpack(tensors, checkpoint.raw, dtype)
    parameters = ((name, value) for name, value in parameters if name not in absent)
    weights.load_into(model, dict(weights.evaluate(parameters) if evaluate else parameters))
    return model


def open_tensors(directory: Path) -> MutableMapping[str, Any]:
    """Return a directory's tensors by name, each read when it is used.

    Raises:
        CheckpointError: there are none, or they are damaged.
        MissingDependencyError: there is only a pytorch_model.bin, and torch is not installed.
    """
    files = weights.safetensors_files(directory)
    if files:
        return {name: tensor for path in files for name, tensor in weights.read_safetensors(path).items()}
    if (directory / TORCH_WEIGHTS_FILE).is_file():
        return read_torch_weights(directory / TORCH_WEIGHTS_FILE)
    raise CheckpointError(f"{directory} holds no {weights.WEIGHTS_FILE}, no index of shards and no pytorch_model.bin")


def _packing(path: str, tensors: Mapping[str, Any], raw: Mapping[str, Any]) -> bool | dict[str, Any]:
    """Return the arguments that make the module at `path` a quantized one, or False where it is not."""
    return vars(quantization_of(raw, path)) if path + ".scales" in tensors else False
