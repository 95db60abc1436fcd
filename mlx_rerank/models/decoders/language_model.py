"""The decoder of language models, read as a reranker: what a row's last token is like, times a row of scores.

Follows transformers' Qwen3ForCausalLM and its kin ("Qwen3 Technical Report", 2025), with changes that leave every
result as it is. Rows are padded on the right: no token sees one that follows it, so there is no mask but in the last
layer, where each row's last token alone is computed after keys and values. Projections that read the same are one
matrix. Of the head there is one row, so that no vocabulary is multiplied. All arithmetic stays in the dtype of the
weights, but for the score, which is the product of the last state with a float32 row.

Shape letters: B pairs, L tokens of the longest pair, P tokens of a prefix, D hidden size, H heads, K heads of keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rerank.device import causal, operations
from mlx_rerank.errors import InputError
from mlx_rerank.models.cost import Cost
from mlx_rerank.models.layers import Linear, Model, RMSNorm, look_up, some_outputs
from mlx_rerank.models.rules import Rule, copied, linear, norm
from mlx_rerank.models.shape import Shape

WORDS = "embeddings.word_embeddings"
Past = tuple[mx.array, mx.array]  # keys and values of a layer, [1 or B, K, P, head_dim] each


@dataclass(frozen=True)
class DecoderShape(Shape):
    """The numbers of a decoder; `layer_norm_eps` is that of its RMS norms."""

    num_key_value_heads: int
    head_dim: int
    rope_theta: float

    @property
    def projections(self) -> tuple[int, int, int]:
        """Numbers of a token's queries, keys and values."""
        keys = self.num_key_value_heads * self.head_dim
        return self.num_attention_heads * self.head_dim, keys, keys


@dataclass(frozen=True)
class Switches:
    """In what decoders differ.

    Args:
        qkv_bias: whether the projections to query, key and value have a bias.
        qk_norm: whether queries and keys are normalised, head by head, before they are turned.
    """

    qkv_bias: bool = False
    qk_norm: bool = False


class Attention(nn.Module):
    """Attention of heads that share keys and values, each token over itself and those before it."""

    def __init__(self, shape: DecoderShape, switches: Switches) -> None:
        super().__init__()
        self.shape = shape
        self.qkv_proj = Linear(shape.hidden_size, sum(shape.projections), bias=switches.qkv_bias)
        self.out_proj = Linear(shape.projections[0], shape.hidden_size, bias=False)
        if switches.qk_norm:
            self.q_norm = RMSNorm(shape.head_dim, eps=shape.layer_norm_eps)
            self.k_norm = RMSNorm(shape.head_dim, eps=shape.layer_norm_eps)

    def __call__(self, x: mx.array, past: Past | None) -> mx.array:
        """Map [B, L, D] to [B, L, D]."""
        queries, keys, _ = self.shape.projections
        q, k, v = mx.split(self.qkv_proj(x), [queries, queries + keys], axis=-1)
        start = 0 if past is None else past[0].shape[2]
        k, v = self._keys(k, v, past)
        attended = causal.causal_attention(self._turned(q, "q_norm", start), k, v, self.shape.head_dim**-0.5)
        return self._out(attended)

    def of_last(self, x: mx.array, last: mx.array, mask: mx.array | None, past: Past | None) -> mx.array:
        """Map [B, L, D] to the last tokens' [B, 1, D].

        Args:
            x: of all tokens.
            last: int32 [B], the place of each row's last token.
            mask: bool [B, L], True on real tokens; None where all are.
            past: of the prefix.
        """
        queries = self.shape.projections[0]
        k, v = mx.split(some_outputs(self.qkv_proj, x, slice(queries, sum(self.shape.projections))), 2, axis=-1)
        start = 0 if past is None else past[0].shape[2]
        k, v = self._keys(k, v, past)
        q = some_outputs(self.qkv_proj, pick(x, last)[:, 0], slice(0, queries))[:, None]
        if mask is not None:
            mask = mx.pad(mask, [(0, 0), (start, 0)], constant_values=mx.array(True))[:, None, None]
        q = self._turned(q, "q_norm", last + start)
        return self._out(operations.attention(q, k, v, self.shape.head_dim**-0.5, mask))

    def _keys(self, k: mx.array, v: mx.array, past: Past | None) -> Past:
        """Return keys and values, after those of the prefix."""
        k = self._turned(k, "k_norm", 0 if past is None else past[0].shape[2])
        v = v.reshape(*v.shape[:2], -1, self.shape.head_dim).swapaxes(1, 2)
        if past is None:
            return k, v
        before = (mx.broadcast_to(part, (k.shape[0], *part.shape[1:])) for part in past)
        return tuple(mx.concatenate([old, new], axis=2) for old, new in zip(before, (k, v), strict=True))  # pyright: ignore[reportReturnType]

    def _turned(self, x: mx.array, norm: str, start: int | mx.array) -> mx.array:
        """Return queries or keys [B, L, ...] as [B, heads, L, head_dim], normalised, and turned by their positions."""
        x = x.reshape(*x.shape[:2], -1, self.shape.head_dim)
        if norm in self:
            x = self[norm](x)
        return operations.rope(x.swapaxes(1, 2), self.shape.rope_theta, start)

    def _out(self, attended: mx.array) -> mx.array:
        """Map [B, H, L, head_dim] to [B, L, D]."""
        return self.out_proj(attended.swapaxes(1, 2).reshape(attended.shape[0], attended.shape[2], -1))


class Layer(nn.Module):
    """One layer: attention and feed-forward, each of what is normalised before, and added to it."""

    def __init__(self, shape: DecoderShape, switches: Switches) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self.attention = Attention(shape, switches)
        self.output_norm = RMSNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self.gate_up_proj = Linear(shape.hidden_size, 2 * shape.intermediate_size, bias=False)
        self.down_proj = Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def __call__(
        self,
        x: mx.array,
        last: mx.array | None = None,
        mask: mx.array | None = None,
        past: Past | None = None,
    ) -> mx.array:
        """Map [B, L, D] to [B, L, D] or, if their places are given, to the last tokens' [B, 1, D]."""
        normed = self.attention_norm(x)
        if last is None:
            x = x + self.attention(normed, past)
        else:
            x = pick(x, last) + self.attention.of_last(normed, last, mask, past)
        gate, up = mx.split(self.gate_up_proj(self.output_norm(x)), 2, axis=-1)
        return x + self.down_proj(operations.swiglu(gate, up))


class Head(nn.Module):
    """The relevance logit of a pair, read from its last token."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.norm = RMSNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self.row = mx.zeros((1, shape.hidden_size))

    def __call__(self, x: mx.array) -> mx.array:
        """Map [B, 1, D] to float32 [B]."""
        return operations.score(self.norm(x)[:, 0], self.row[0])


class Embeddings(nn.Module):
    """Word embeddings alone: layers turn queries and keys by their positions."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.hidden_size)

    def __call__(self, input_ids: mx.array, words: mx.array | None, dtype: mx.Dtype) -> mx.array:
        """Map int32 ids [B, L] to [B, L, D]."""
        return look_up(self.word_embeddings, input_ids, dtype) if words is None else words


class LanguageModel(Model):
    """The whole model: token ids in, one logit per pair out."""

    def __init__(self, shape: DecoderShape, switches: Switches) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = Embeddings(shape)
        self.layers = [Layer(shape, switches) for _ in range(shape.num_hidden_layers)]
        self.head = Head(shape)

    def __call__(
        self,
        input_ids: mx.array,
        attention_mask: mx.array | None = None,
        segments: mx.array | None = None,
        words: mx.array | None = None,
        prefix: Sequence[Past] | None = None,
    ) -> mx.array:
        """Return one relevance logit per pair.

        Args:
            input_ids: int32 [B, L], rows of the family's frame, right-padded.
            attention_mask: bool [B, L], True on real tokens, at least one per row; None where all are real.
            segments: None; decoders know none.
            words: [B, L, D], the ids' word embeddings; if None, looked up in the model's own table.
            prefix: each layer's keys and values of tokens that all rows begin with, and that the ids leave out.

        Returns:
            float32 [B], unbounded, higher is more relevant.

        Raises:
            InputError: the mask is not bool, or L exceeds the model's longest row.
        """
        if input_ids.shape[1] > self.shape.max_length:
            raise InputError(f"{input_ids.shape[1]} tokens exceed the model's {self.shape.max_length}: truncate first")
        if attention_mask is not None and attention_mask.dtype != mx.bool_:
            raise InputError(f"attention_mask must be bool, not {attention_mask.dtype}")
        past: Sequence[Past | None] = prefix or [None] * len(self.layers)
        norm: Any = self.head.norm
        x = self.embeddings(input_ids, words, norm.weight.dtype)
        for layer, own in zip(self.layers[:-1], past, strict=False):
            x = layer(x, past=own)
        last = mx.full(x.shape[:1], x.shape[1] - 1, mx.int32)
        if attention_mask is not None:
            last = attention_mask.astype(mx.int32).sum(axis=-1) - 1
        return self.head(self.layers[-1](x, last, attention_mask, past[-1]))


class DecoderCost(Cost):
    """The cost of a decoder, whose tokens see half of a row on average."""

    shape: DecoderShape

    @property
    def products(self) -> list[tuple[int, int]]:
        """Inputs and outputs of the matrix products of a layer: to query, key and value; back; gate and up; down."""
        D, F = self.shape.hidden_size, self.shape.intermediate_size
        return [(D, sum(self.shape.projections)), (self.shape.projections[0], D), (D, 2 * F), (F, D)]

    def operations(self, length: int) -> int:
        """Return all layers' operations on one token of a pair of this length: an addition for each multiplication."""
        products = sum(inputs * outputs for inputs, outputs in self.products)
        return 2 * self.shape.num_hidden_layers * (products + self.shape.projections[0] * length)

    def bytes(self, length: int, itemsize: int) -> int:
        """Return the most that a layer holds at once for a token; arguments are those of `Cost.bytes`."""
        D, F = self.shape.hidden_size, self.shape.intermediate_size
        return itemsize * (2 * D + max(3 * F, 2 * sum(self.shape.projections)))


def pick(x: mx.array, places: mx.array) -> mx.array:
    """Return one token of each row: [B, L, D] and int32 [B] give [B, 1, D]."""
    return mx.take_along_axis(x, places[:, None, None], axis=1)


def layer_rules(shape: DecoderShape, switches: Switches) -> list[Rule]:
    """Return the rules of all parameters but the head's row."""
    D, F, rules = shape.hidden_size, shape.intermediate_size, []
    for n in range(shape.num_hidden_layers):
        own, theirs = f"layers.{n}", f"model.layers.{n}"
        projections = [f"{theirs}.self_attn.{part}_proj" for part in "qkv"]
        rules += linear(f"{own}.attention.qkv_proj", projections, shape.projections, D, bias=switches.qkv_bias)
        rules += linear(
            f"{own}.attention.out_proj", [f"{theirs}.self_attn.o_proj"], D, shape.projections[0], bias=False
        )
        for part in ("q_norm", "k_norm") if switches.qk_norm else ():
            rules += norm(f"{own}.attention.{part}", f"{theirs}.self_attn.{part}", shape.head_dim, bias=False)
        rules += norm(f"{own}.attention_norm", f"{theirs}.input_layernorm", D, bias=False)
        rules += norm(f"{own}.output_norm", f"{theirs}.post_attention_layernorm", D, bias=False)
        halves = [f"{theirs}.mlp.{part}_proj" for part in ("gate", "up")]
        rules += linear(f"{own}.gate_up_proj", halves, F, D, bias=False)
        rules += linear(f"{own}.down_proj", [f"{theirs}.mlp.down_proj"], D, F, bias=False)
    words = copied(f"{WORDS}.weight", "model.embed_tokens.weight", (shape.vocab_size, D))
    return [words, *norm("head.norm", "model.norm", D, bias=False), *rules]


def packable(shape: DecoderShape) -> list[dict[str, int]]:
    """Return, for each layer, the matrices that may be packed, by path, with the width of their rows."""
    D, F = shape.hidden_size, shape.intermediate_size
    matrices = {"attention.qkv_proj": D, "attention.out_proj": shape.projections[0], "gate_up_proj": D, "down_proj": F}
    return [{f"layers.{n}.{name}": width for name, width in matrices.items()} for n in range(shape.num_hidden_layers)]


def hidden_states(shape: DecoderShape) -> list[str]:
    """Return the module path of each hidden state that transformers returns for such a model.

    Its last one is normalised, and here it is of the last token alone.
    """
    return ["embeddings", *(f"layers.{n}" for n in range(shape.num_hidden_layers - 1)), "head.norm"]
