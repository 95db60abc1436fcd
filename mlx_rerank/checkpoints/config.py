"""What a checkpoint's config.json says, read strictly into frozen dataclasses."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mlx_rerank.errors import CheckpointError, UnsupportedModelError

CONVERSION_KEY = "mlx_rerank"
SPECIAL_TOKENS_PER_PAIR = 4  # <s> query </s></s> document </s>


@dataclass(frozen=True)
class ModelConfig:
    """Shape of an XLM-RoBERTa cross-encoder. No field has a default: a checkpoint must state its shape."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    layer_norm_eps: float
    pad_token_id: int
    bos_token_id: int
    eos_token_id: int

    @property
    def max_length(self) -> int:
        """Most tokens of a pair, special tokens included: positions start after the padding id."""
        return self.max_position_embeddings - self.pad_token_id - 1

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "ModelConfig":
        """Read and check the shape fields of a config.json.

        Raises:
            UnsupportedModelError: the checkpoint is of another architecture, or has not exactly one label.
            CheckpointError: a shape field is missing, of the wrong type, or contradicts another.
        """
        _require_cross_encoder(config)
        values = {}
        for field in fields(cls):
            if field.name not in config:
                raise CheckpointError(f"config.json has no {field.name!r}; a checkpoint must state its shape")
            values[field.name] = _number(field.name, config[field.name], float if field.type is float else int)
        shape = cls(**values)
        if shape.hidden_size % shape.num_attention_heads:
            raise CheckpointError(
                f"hidden_size {shape.hidden_size} is not a multiple of num_attention_heads {shape.num_attention_heads}"
            )
        if shape.max_length <= SPECIAL_TOKENS_PER_PAIR:
            raise CheckpointError(
                f"max_position_embeddings {shape.max_position_embeddings} leaves {shape.max_length} tokens for a pair; "
                f"{SPECIAL_TOKENS_PER_PAIR} are taken by special tokens"
            )
        return shape


def read_config(directory: Path) -> dict[str, Any]:
    """Return the config.json of a checkpoint directory as a dict.

    Raises:
        CheckpointError: there is none, or it is not a JSON object.
    """
    config = read_object(directory / "config.json")
    if config is None:
        raise CheckpointError(f"{directory} has no config.json, so it is not a checkpoint directory")
    return config


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the JSON object that a file holds; None where there is no file.

    Raises:
        CheckpointError: it holds anything else, or cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, not a JSON object")
    return found


def is_converted(config: Mapping[str, Any]) -> bool:
    """Tell a directory written by this package's converter from a Hugging Face one."""
    return CONVERSION_KEY in config


def _require_cross_encoder(config: Mapping[str, Any]) -> None:
    """Refuse, saying what was found, all but a single-label XLM-RoBERTa sequence classifier."""
    model_type, architectures = config.get("model_type"), config.get("architectures")
    found = f"model_type {model_type!r}, architectures {architectures}"
    wanted = "mlx-rerank runs single-label XLM-RoBERTa cross-encoders, such as BAAI/bge-reranker-v2-m3"
    if model_type != "xlm-roberta":
        raise UnsupportedModelError(f"{wanted}; found {found}")
    if architectures != ["XLMRobertaForSequenceClassification"]:
        kind = "an embedding model" if architectures == ["XLMRobertaModel"] else "another head"
        raise UnsupportedModelError(f"{wanted}; found {kind}: {found}")
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)  # 2: the default of transformers
    if count != 1:
        raise UnsupportedModelError(f"{wanted}; found a classifier with {count} labels: {labels}")
    for key, expected in (("hidden_act", "gelu"), ("position_embedding_type", "absolute"), ("type_vocab_size", 1)):
        if config.get(key, expected) != expected:
            raise UnsupportedModelError(f"{wanted} with {key} {expected!r}; found {config[key]!r}")


def _number(name: str, value: Any, kind: type) -> int | float:
    """Return a finite number of a kind: ids from 0, sizes from 1, the epsilon above 0. An int will do for a float."""
    least = 0 if name.endswith("_id") else 1e-30 if kind is float else 1
    if isinstance(value, bool) or not isinstance(value, (int, kind)) or not least <= value < float("inf"):
        raise CheckpointError(
            f"config.json: {name} must be a number ({kind.__name__}) of at least {least}, found {value!r}"
        )
    return kind(value)
