"""The numbers of a model, read strictly from its config.json: a checkpoint must state its shape."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np

from mlx_rerank.errors import CheckpointError, InputError

_MOST_LAYERS = 1000  # several times those of any model; what is listed layer by layer stays small
_MOST = 2**31 - 1  # what a size or an id may be: MLX counts in 32 bits


@dataclass(frozen=True)
class Shape:
    """What every family states of a model. No field has a default."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    layer_norm_eps: float
    pad_token_id: int

    @property
    def max_length(self) -> int:
        """Most tokens of a pair, special tokens included."""
        return self.max_position_embeddings

    @property
    def word_size(self) -> int:
        """Width of a word's embedding."""
        return self.hidden_size


S = TypeVar("S", bound=Shape)


def read_shape(kind: type[S], config: Mapping[str, Any], special_tokens: int, **known: Any) -> S:
    """Read and check the shape fields of a config.json.

    Args:
        kind: the dataclass whose fields are read.
        config: of a checkpoint.
        special_tokens: that a pair needs room for, beside its texts.
        known: fields that are no numbers, as the family has read them.

    Raises:
        CheckpointError: a field is missing, of the wrong type, or contradicts another.
    """
    values = dict(known)
    for field in fields(kind):
        if field.name in known:
            continue
        if field.name not in config:
            raise CheckpointError(f"config.json has no {field.name!r}; a checkpoint must state its shape")
        values[field.name] = _number(field.name, config[field.name], field.type if field.type in (float, bool) else int)
    shape = kind(**values)
    if "head_dim" not in values and shape.hidden_size % shape.num_attention_heads:
        raise CheckpointError(
            f"hidden_size {shape.hidden_size} is not a multiple of num_attention_heads {shape.num_attention_heads}"
        )
    if shape.max_length <= special_tokens:
        raise CheckpointError(
            f"max_position_embeddings {shape.max_position_embeddings} leaves {shape.max_length} tokens for a pair; "
            f"{special_tokens} are taken by special tokens"
        )
    return shape


def check_input_ids(input_ids: np.ndarray, shape: Shape) -> None:
    """Check a batch before MLX sees it: a gather past the end of a table reads foreign memory.

    Args:
        input_ids: integers [B, L].
        shape: of the model.

    Raises:
        InputError: no rows, no tokens, too many tokens, or an id outside the vocabulary.
    """
    if input_ids.ndim != 2 or 0 in input_ids.shape:
        raise InputError(f"input_ids must be a non-empty [pairs, tokens] array, not of shape {input_ids.shape}")
    if input_ids.shape[1] > shape.max_length:
        raise InputError(f"{input_ids.shape[1]} tokens exceed the model's {shape.max_length}: truncate first")
    low, high = int(input_ids.min()), int(input_ids.max())
    if low < 0 or high >= shape.vocab_size:
        raise InputError(
            f"token id {low if low < 0 else high} is outside the model's vocabulary of {shape.vocab_size}: "
            "the tokenizer and the weights do not belong together"
        )


def _number(name: str, value: Any, kind: type) -> int | float:
    """Return a number or boolean: ids from 0, sizes from 1, the epsilon above 0. An int will do for a float."""
    if kind is bool:
        if not isinstance(value, bool):
            raise CheckpointError(f"config.json: {name} must be true or false, found {value!r:.40}")
        return value
    least = 0 if name.endswith("_id") else 1e-30 if kind is float else 1
    most = _MOST_LAYERS if name == "num_hidden_layers" else _MOST
    if isinstance(value, bool) or not isinstance(value, (int, kind)) or not least <= value <= most:
        raise CheckpointError(
            f"config.json: {name} must be a number ({kind.__name__}) from {least} to {most}, found {value!r:.40}"
        )
    return kind(value)
