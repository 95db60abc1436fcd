"""XLM-RoBERTa with a single-label classification head, the cross-encoder behind the bge rerankers.

Follows transformers' XLMRobertaForSequenceClassification (post-layer-norm encoder of "Unsupervised Cross-lingual
Representation Learning at Scale", Conneau et al. 2020), with four changes that leave every result as it is: the one
row of token type embeddings is part of the position table, query/key/value projections are one matrix, the last layer
computes the first token alone, which is all that the head reads, and dropout is gone. All arithmetic stays in the dtype
of the weights; masks are bool; only the returned logits are float32.

Shape letters: B pairs, L tokens of the longest pair, D hidden size, H heads.
"""

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_rerank.checkpoints.config import ModelConfig
from mlx_rerank.device import operations
from mlx_rerank.errors import InputError


def look_up(table: nn.Embedding | nn.QuantizedEmbedding, ids: mx.array, dtype: mx.Dtype) -> mx.array:
    """Return the rows of a table, packed ones unpacked to the dtype.

    MLX's own lookup returns bfloat16 where a table is packed in a mode whose scales are no floats.
    """
    if isinstance(table, nn.Embedding):
        return table(ids)
    biases = table.biases[ids] if table.biases is not None else None
    packing = {"group_size": table.group_size, "bits": table.bits, "mode": table.mode}
    return mx.dequantize(table.weight[ids], table.scales[ids], biases, **packing, dtype=dtype)


def some_outputs(linear: "Linear | nn.QuantizedLinear", x: mx.array, outputs: slice) -> mx.array:
    """Return a range of what a linear module, packed or not, makes of x [..., D]; the rest is not computed."""
    if isinstance(linear, Linear):
        return linear.some_outputs(x, outputs)
    biases = linear.biases[outputs] if linear.biases is not None else None
    packing = {"group_size": linear.group_size, "bits": linear.bits, "mode": linear.mode}
    weight, scales = linear.weight[outputs], linear.scales[outputs]
    return mx.quantized_matmul(x, weight, scales, biases, transpose=True, **packing) + linear.bias[outputs]


class Linear(nn.Linear):
    """A linear map with a bias."""

    def __call__(self, x: mx.array) -> mx.array:
        """Map [..., D] to [..., F]."""
        return operations.linear(x, self.weight, self.bias)

    def some_outputs(self, x: mx.array, outputs: slice) -> mx.array:
        """Map [..., D] to a range of the outputs."""
        return operations.linear(x, self.weight[outputs], self.bias[outputs])


class LayerNorm(nn.LayerNorm):
    """Layer normalisation with weight and bias."""

    def __call__(self, x: mx.array) -> mx.array:
        """Map [..., D] to [..., D]."""
        return operations.layer_norm(x, self.weight, self.bias, self.eps)


class Embeddings(nn.Module):
    """Word plus position embeddings, normalised."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pad_token_id = config.pad_token_id
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def __call__(self, input_ids: mx.array, words: mx.array | None = None) -> mx.array:
        """Map int32 ids [B, L] to [B, L, D]. Real tokens count up from `pad_token_id + 1`, padding stays on its id."""
        real = (input_ids != self.pad_token_id).astype(mx.int32)
        positions = mx.cumsum(real, axis=1) * real + self.pad_token_id  # (B, L)
        places = self.position_embeddings(positions)
        if words is None:
            words = look_up(self.word_embeddings, input_ids, places.dtype)
        return self.norm(words + places)


class SelfAttention(nn.Module):
    """Multi-head attention over the tokens that the mask shows."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.scale = (config.hidden_size // config.num_attention_heads) ** -0.5
        self.qkv_proj = Linear(config.hidden_size, 3 * config.hidden_size)
        self.out_proj = Linear(config.hidden_size, config.hidden_size)

    def __call__(self, x: mx.array, mask: mx.array | None, *, first_token_only: bool = False) -> mx.array:
        """Map [B, L, D] to [B, L, D], or to the first token's [B, 1, D].

        The mask is bool [B, 1, 1, L], or None where every token is real.
        """
        B, _, D = x.shape
        if first_token_only:
            q = some_outputs(self.qkv_proj, x[:, :1], slice(0, D))
            k, v = mx.split(some_outputs(self.qkv_proj, x, slice(D, 3 * D)), 2, axis=-1)
        else:
            q, k, v = mx.split(self.qkv_proj(x), 3, axis=-1)
        q, k, v = (part.reshape(B, -1, self.num_heads, D // self.num_heads).swapaxes(1, 2) for part in (q, k, v))
        attended = operations.attention(q, k, v, self.scale, mask)  # (B, H, L or 1, D/H)
        return self.out_proj(attended.swapaxes(1, 2).reshape(B, -1, D))


class Layer(nn.Module):
    """One encoder layer: attention and feed-forward, each added to its input and then normalised."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size)
        self.output_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def __call__(self, x: mx.array, mask: mx.array | None, *, first_token_only: bool = False) -> mx.array:
        """Map [B, L, D] to [B, L, D], or to the first token's [B, 1, D]."""
        attended = self.attention(x, mask, first_token_only=first_token_only)
        x = self.attention_norm((x[:, :1] if first_token_only else x) + attended)
        return self.output_norm(x + self.down_proj(operations.gelu(self.up_proj(x))))


class Head(nn.Module):
    """The relevance logit of a pair, read from its first token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.out_proj = Linear(config.hidden_size, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """Map [B, L, D] to [B]."""
        return self.out_proj(mx.tanh(self.dense(x[:, 0]))).squeeze(-1)


class CrossEncoder(nn.Module):
    """The whole model: token ids in, one logit per pair out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = [Layer(config) for _ in range(config.num_hidden_layers)]
        self.head = Head(config)

    def __call__(
        self, input_ids: mx.array, attention_mask: mx.array | None = None, words: mx.array | None = None
    ) -> mx.array:
        """Return one relevance logit per pair.

        Args:
            input_ids: int32 [B, L], ``<s> query </s></s> document </s>``, right-padded with ``config.pad_token_id``.
                MLX does not check them against the table: see `check_input_ids`.
            attention_mask: bool [B, L], True on real tokens, at least one per row. None where all are real, which
                saves the masking.
            words: [B, L, D], the ids' word embeddings in the weights' dtype; looked up in the model's own table if
                None, which it need not have otherwise.

        Returns:
            float32 [B], unbounded, higher is more relevant. Layers run in the weights' dtype; only this is cast.

        Raises:
            InputError: the mask is not bool, or L exceeds ``config.max_length``.

        Source: transformers XLMRobertaForSequenceClassification.forward; tests/parity/test_logits.py.
        """
        if input_ids.shape[1] > self.config.max_length:
            raise InputError(f"{input_ids.shape[1]} tokens exceed the model's {self.config.max_length}: truncate first")
        if attention_mask is not None and attention_mask.dtype != mx.bool_:
            # Attention would add an int mask to its logits, which is wrong without any error.
            raise InputError(f"attention_mask must be bool, not {attention_mask.dtype}")
        mask = None if attention_mask is None else attention_mask[:, None, None, :]
        x = self.embeddings(input_ids, words)
        for layer in self.layers[:-1]:
            x = layer(x, mask)
        x = self.layers[-1](x, mask, first_token_only=True)
        return self.head(x).astype(mx.float32)


def check_input_ids(input_ids: np.ndarray, config: ModelConfig) -> None:
    """Check a batch before MLX sees it: a gather past the end of a table reads foreign memory.

    Args:
        input_ids: integers [B, L].
        config: the model's shape.

    Raises:
        InputError: no rows, no tokens, too many tokens, or an id outside the vocabulary.
    """
    if input_ids.ndim != 2 or 0 in input_ids.shape:
        raise InputError(f"input_ids must be a non-empty [pairs, tokens] array, not of shape {input_ids.shape}")
    if input_ids.shape[1] > config.max_length:
        raise InputError(f"{input_ids.shape[1]} tokens exceed the model's {config.max_length}: truncate first")
    low, high = int(input_ids.min()), int(input_ids.max())
    if low < 0 or high >= config.vocab_size:
        raise InputError(
            f"token id {low if low < 0 else high} is outside the model's vocabulary of {config.vocab_size}: "
            "the tokenizer and the weights do not belong together"
        )
