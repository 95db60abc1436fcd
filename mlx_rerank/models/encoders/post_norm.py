"""The encoder of BERT's kin, which normalises after each addition, and the rules of its layers.

Follows the encoder of transformers' Bert and (XLM-)Roberta classes ("BERT: Pre-training of Deep Bidirectional
Transformers", Devlin et al. 2019), with three changes that leave every result as it is: the projections to query, key
and value are one matrix, the last layer computes the first token alone, which is all that the head reads, and there is
no dropout. All arithmetic stays in the dtype of the weights; masks are bool; only the returned logits are float32.

Shape letters: B pairs, L tokens of the longest pair, D hidden size, H heads.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlx_rerank.device import operations
from mlx_rerank.errors import InputError
from mlx_rerank.models.layers import LayerNorm, Linear, Model, look_up, some_outputs
from mlx_rerank.models.rules import Rule, linear, norm
from mlx_rerank.models.shape import Shape

WORDS = "embeddings.word_embeddings"
Activation = Callable[[mx.array], mx.array]


class LayerNames(NamedTuple):
    """What the modules of a layer are called in a checkpoint; query, key and value may be stacked in one."""

    qkv: tuple[str, ...]
    attention_out: str
    attention_norm: str
    up: str
    down: str
    output_norm: str


BERT_LAYER = LayerNames(
    qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
    attention_out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
)


class Embeddings(nn.Module):
    """Word embeddings plus those of their places, normalised."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.word_size)
        self.position_embeddings = nn.Embedding(shape.max_position_embeddings, shape.word_size)
        self.norm = LayerNorm(shape.word_size, eps=shape.layer_norm_eps)

    def places(self, input_ids: mx.array, segments: mx.array | None) -> mx.array:
        """Return what is added to the words, [B, L, D] or [1, L, D]; each family has its own."""
        raise NotImplementedError

    def __call__(
        self, input_ids: mx.array, segments: mx.array | None = None, words: mx.array | None = None
    ) -> mx.array:
        """Map int32 ids [B, L] to [B, L, D]."""
        places = self.places(input_ids, segments)
        if words is None:
            words = look_up(self.word_embeddings, input_ids, places.dtype)
        return self.norm(words + places)


class SelfAttention(nn.Module):
    """Multi-head attention over the tokens that the mask shows."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.num_heads = shape.num_attention_heads
        self.scale = (shape.hidden_size // shape.num_attention_heads) ** -0.5
        self.qkv_proj = Linear(shape.hidden_size, 3 * shape.hidden_size)
        self.out_proj = Linear(shape.hidden_size, shape.hidden_size)

    def placed(self, heads: mx.array) -> mx.array:
        """Return queries or keys, [B, H, L, D/H], with their places, where the embeddings do not have these."""
        return heads

    def __call__(self, x: mx.array, mask: mx.array | None, *, first_token_only: bool = False) -> mx.array:
        """Map [B, L, D] to [B, L, D], or to the first token's [B, 1, D].

        The mask is bool [B, 1, 1, L], or None where every token is real.
        """
        B, _, D = x.shape
        if first_token_only:
            q = some_outputs(self.qkv_proj, x[:, 0], slice(0, D))  # if packed, one product for all pairs
            k, v = mx.split(some_outputs(self.qkv_proj, x, slice(D, 3 * D)), 2, axis=-1)
        else:
            q, k, v = mx.split(self.qkv_proj(x), 3, axis=-1)
        q, k, v = (part.reshape(B, -1, self.num_heads, D // self.num_heads).swapaxes(1, 2) for part in (q, k, v))
        attended = operations.attention(self.placed(q), self.placed(k), v, self.scale, mask)  # (B, H, L or 1, D/H)
        return self.out_proj(attended.swapaxes(1, 2).reshape(B, -1, D))


class Layer(nn.Module):
    """One encoder layer: attention and feed-forward, each added to its input and then normalised."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention = SelfAttention(shape)
        self.attention_norm = LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self.up_proj = Linear(shape.hidden_size, shape.intermediate_size)
        self.down_proj = Linear(shape.intermediate_size, shape.hidden_size)
        self.output_norm = LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)

    def __call__(self, x: mx.array, mask: mx.array | None, *, first_token_only: bool = False) -> mx.array:
        """Map [B, L, D] to [B, L, D], or to the first token's [B, 1, D]."""
        attended = self.attention(x, mask, first_token_only=first_token_only)
        x = self.attention_norm((x[:, :1] if first_token_only else x) + attended)
        return self.output_norm(x + self.down_proj(operations.gelu(self.up_proj(x))))


class Head(nn.Module):
    """The relevance logit of a pair, read from its first token."""

    def __init__(self, shape: Shape, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.dense = Linear(shape.hidden_size, shape.hidden_size)
        self.out_proj = Linear(shape.hidden_size, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """Map [B, L, D] to [B]."""
        return self.out_proj(self.activation(self.dense(x[:, 0]))).squeeze(-1)


class Encoder(Model):
    """The whole model: token ids in, one logit per pair out. The activation is the head's."""

    def __init__(self, shape: Shape, embeddings: nn.Module, activation: Activation = mx.tanh) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings: Any = embeddings  # a family's own
        self.layers = [Layer(shape) for _ in range(shape.num_hidden_layers)]
        self.head = Head(shape, activation)

    def seen_by_layers(self, mask: mx.array | None, length: int) -> Any:
        """Return what layers get beside the tokens: a mask, bool [B, 1, 1, L] or None; some families add to it."""
        return mask

    def __call__(
        self,
        input_ids: mx.array,
        attention_mask: mx.array | None = None,
        segments: mx.array | None = None,
        words: mx.array | None = None,
    ) -> mx.array:
        """Return one relevance logit per pair.

        Args:
            input_ids: int32 [B, L], rows of the family's frame, right-padded. MLX does not check them against the
                table: see `check_input_ids`.
            attention_mask: bool [B, L], True on real tokens, at least one per row. None where all are real, which
                saves the masking.
            segments: bool [B, L], True on tokens of the second segment; None in a family that knows no segments.
            words: [B, L, D], the ids' word embeddings in the weights' dtype; if None, looked up in the model's own
                table, which is needed only then.

        Returns:
            float32 [B], unbounded, higher is more relevant. Layers run in the weights' dtype; only this is cast.

        Raises:
            InputError: the mask is not bool, or L exceeds the model's longest row.
        """
        if input_ids.shape[1] > self.shape.max_length:
            raise InputError(f"{input_ids.shape[1]} tokens exceed the model's {self.shape.max_length}: truncate first")
        if attention_mask is not None and attention_mask.dtype != mx.bool_:
            # Attention would add an int mask to its logits, which is wrong without any error.
            raise InputError(f"attention_mask must be bool, not {attention_mask.dtype}")
        mask = self.seen_by_layers(
            None if attention_mask is None else attention_mask[:, None, None, :], input_ids.shape[1]
        )
        x = self.embeddings(input_ids, segments, words)
        for layer in self.layers[:-1]:
            x = layer(x, mask)
        x = self.layers[-1](x, mask, first_token_only=True)
        return self.head(x).astype(mx.float32)


def layer_rules(shape: Shape, prefix: str, names: LayerNames = BERT_LAYER) -> list[Rule]:
    """Return the rules of all layers.

    Args:
        shape: of the model.
        prefix: of the layers' tensors in a checkpoint, before the layer's number.
        names: of a layer's modules there.
    """
    D, F, rules = shape.hidden_size, shape.intermediate_size, []
    for n in range(shape.num_hidden_layers):
        own, theirs = f"layers.{n}", f"{prefix}{n}"
        projections = [f"{theirs}.{part}" for part in names.qkv]
        rules += linear(f"{own}.attention.qkv_proj", projections, 3 * D // len(projections), D)
        rules += linear(f"{own}.attention.out_proj", [f"{theirs}.{names.attention_out}"], D, D)
        rules += norm(f"{own}.attention_norm", f"{theirs}.{names.attention_norm}", D)
        rules += linear(f"{own}.up_proj", [f"{theirs}.{names.up}"], F, D)
        rules += linear(f"{own}.down_proj", [f"{theirs}.{names.down}"], D, F)
        rules += norm(f"{own}.output_norm", f"{theirs}.{names.output_norm}", D)
    return rules


def packable(shape: Shape) -> list[dict[str, int]]:
    """Return, for each layer, the matrices that may be packed, by path, with the width of their rows."""
    D, F = shape.hidden_size, shape.intermediate_size
    matrices = {"attention.qkv_proj": D, "attention.out_proj": D, "up_proj": D, "down_proj": F}
    return [{f"layers.{n}.{name}": width for name, width in matrices.items()} for n in range(shape.num_hidden_layers)]


def hidden_states(shape: Shape) -> list[str]:
    """Return the module path of each hidden state that transformers returns for such a model."""
    return ["embeddings", *(f"layers.{n}" for n in range(shape.num_hidden_layers))]
