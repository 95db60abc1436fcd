"""ModernBERT with a single-label classification head, such as gte-reranker-modernbert-base.

Follows transformers' ModernBertForSequenceClassification ("Smarter, Better, Faster, Longer: A Modern Bidirectional
Encoder", Warner et al. 2024): rotary positions, gated feed-forwards, most layers see a window of neighbours alone, and
the head reads the first token or the mean of all. Where it reads the first token, the last layer computes no other.
tests/families/test_modernbert.py.

Shape letters: B pairs, L tokens of the longest pair, D hidden size, H heads.
"""

import mlx.core as mx
import mlx.nn as nn
from tokenizers import Tokenizer

from mlx_rerank.device import operations
from mlx_rerank.errors import CheckpointError, InputError
from mlx_rerank.models.cost import Cost
from mlx_rerank.models.encoders.modernbert_shape import EXAMPLE, TITLE, ModernBertShape, accepts, read
from mlx_rerank.models.family import Family, InTransformers, require_special_tokens
from mlx_rerank.models.known import KnownModel
from mlx_rerank.models.layers import LayerNorm, Linear, Model, look_up, some_outputs
from mlx_rerank.models.mapping import SIGMOID
from mlx_rerank.models.rules import Rule, copied, linear, norm
from mlx_rerank.models.shape import Shape
from mlx_rerank.models.windows import Window
from mlx_rerank.pairs.frames import Frame

_WORDS = "embeddings.word_embeddings"


class Embeddings(nn.Module):
    """Word embeddings, normalised; positions are in the attention."""

    def __init__(self, shape: ModernBertShape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.norm = LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps, bias=False)

    def __call__(self, input_ids: mx.array, words: mx.array | None) -> mx.array:
        """Map int32 ids [B, L] to [B, L, D]."""
        if words is None:
            words = look_up(self.word_embeddings, input_ids, self.norm.weight.dtype)
        return self.norm(words)


class SelfAttention(nn.Module):
    """Multi-head attention with rotary positions, over all tokens or a window of them."""

    def __init__(self, shape: ModernBertShape, *, sliding: bool) -> None:
        super().__init__()
        self.num_heads = shape.num_attention_heads
        self.scale = (shape.hidden_size // shape.num_attention_heads) ** -0.5
        self.theta = shape.local_rope_theta if sliding else shape.global_rope_theta
        self.qkv_proj = Linear(shape.hidden_size, 3 * shape.hidden_size, bias=False)
        self.out_proj = Linear(shape.hidden_size, shape.hidden_size, bias=False)

    def __call__(self, x: mx.array, seen: mx.array | Window | None, *, first_token_only: bool = False) -> mx.array:
        """Map [B, L, D] to [B, L, D], or to the first token's [B, 1, D].

        What is seen is a window, or bool [B, 1, 1, L], or None where every token is.
        """
        B, _, D = x.shape
        if first_token_only:
            q = some_outputs(self.qkv_proj, x[:, 0], slice(0, D))
            k, v = mx.split(some_outputs(self.qkv_proj, x, slice(D, 3 * D)), 2, axis=-1)
        else:
            q, k, v = mx.split(self.qkv_proj(x), 3, axis=-1)
        q, k, v = (part.reshape(B, -1, self.num_heads, D // self.num_heads).swapaxes(1, 2) for part in (q, k, v))
        q, k = operations.rope(q, self.theta), operations.rope(k, self.theta)
        if isinstance(seen, Window):
            attended = seen.attend(q, k, v, self.scale)
        else:
            attended = operations.attention(q, k, v, self.scale, seen)
        return self.out_proj(attended.swapaxes(1, 2).reshape(B, -1, D))


class Layer(nn.Module):
    """One encoder layer: attention and gated feed-forward, each of what is normalised and added to its input."""

    def __init__(self, shape: ModernBertShape, number: int) -> None:
        super().__init__()
        D, F, eps = shape.hidden_size, shape.intermediate_size, shape.layer_norm_eps
        if number:  # the first layer's input is normalised by the embeddings
            self.attention_norm = LayerNorm(D, eps=eps, bias=False)
        self.attention = SelfAttention(shape, sliding=shape.sliding[number])
        self.feed_forward_norm = LayerNorm(D, eps=eps, bias=False)
        self.up_gate_proj = Linear(D, 2 * F, bias=False)
        self.down_proj = Linear(F, D, bias=False)

    def __call__(self, x: mx.array, seen: mx.array | Window | None, *, first_token_only: bool = False) -> mx.array:
        """Map [B, L, D] to [B, L, D], or to the first token's [B, 1, D]."""
        normal = self.attention_norm(x) if "attention_norm" in self else x
        attended = self.attention(normal, seen, first_token_only=first_token_only)
        x = (x[:, :1] if first_token_only else x) + attended
        up, gate = mx.split(self.up_gate_proj(self.feed_forward_norm(x)), 2, axis=-1)
        return x + self.down_proj(operations.gelu(up) * gate)


class Head(nn.Module):
    """The relevance logit of a pair, read from one vector of it."""

    def __init__(self, shape: ModernBertShape) -> None:
        super().__init__()
        self.dense = Linear(shape.hidden_size, shape.hidden_size, bias=False)
        self.norm = LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps, bias=False)
        self.out_proj = Linear(shape.hidden_size, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """Map [B, D] to [B]."""
        return self.out_proj(self.norm(operations.gelu(self.dense(x)))).squeeze(-1)


class ModernBert(Model):
    """The whole model: token ids in, one logit per pair out."""

    def __init__(self, shape: ModernBertShape, head: nn.Module | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = Embeddings(shape)
        self.layers = [Layer(shape, number) for number in range(shape.num_hidden_layers)]
        self.final_norm = LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps, bias=False)
        self.head = Head(shape) if head is None else head

    def __call__(
        self,
        input_ids: mx.array,
        attention_mask: mx.array | None = None,
        segments: mx.array | None = None,
        words: mx.array | None = None,
    ) -> mx.array:
        """Return one relevance logit per pair, float32 [B]; arguments and errors are those of `post_norm.Encoder`."""
        B, L = input_ids.shape
        if self.shape.max_length < L:
            raise InputError(f"{L} tokens exceed the model's {self.shape.max_length}: truncate first")
        if attention_mask is not None and attention_mask.dtype != mx.bool_:
            raise InputError(f"attention_mask must be bool, not {attention_mask.dtype}")
        whole = None if attention_mask is None else attention_mask[:, None, None, :]
        window = Window.of(self.shape.reach, B, L, attention_mask)
        x = self.embeddings(input_ids, words)
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1 and not self.shape.mean
            x = layer(x, window if self.shape.sliding[number] else whole, first_token_only=last)
        x = self.final_norm(x)
        return self.head(_mean(x, attention_mask) if self.shape.mean else x[:, 0]).astype(mx.float32)


def _mean(x: mx.array, real: mx.array | None) -> mx.array:
    """Return the mean [B, D] of the real tokens of x [B, L, D].

    As a product with shares, which is summed up in float32; a sum of thousands of tokens may not fit into float16.
    """
    real = mx.ones(x.shape[:2], mx.bool_) if real is None else real
    shares = real.astype(x.dtype) / real.sum(axis=1, keepdims=True).astype(x.dtype)
    return (shares[:, None] @ x).squeeze(1)


def _frame(tokenizer: Tokenizer, shape: ModernBertShape) -> Frame:
    """Return what surrounds two texts: ``[CLS] query [SEP] document [SEP]``."""
    require_special_tokens(tokenizer, {"[PAD]": shape.pad_token_id})
    start, end, mask = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[MASK]"))
    if start is None or end is None or mask is None:
        raise CheckpointError(
            f"tokenizer.json has [CLS] at {start}, [SEP] at {end} and [MASK] at {mask}: a ModernBERT needs all three"
        )
    return Frame((start,), (end,), (end,), shape.pad_token_id, hidden=mask)


def backbone_rules(shape: ModernBertShape, prefix: str) -> list[Rule]:
    """Return the rules of all parameters but the head's; the prefix is that of their tensors in a checkpoint."""
    D, F = shape.hidden_size, shape.intermediate_size
    rules = [
        copied(f"{_WORDS}.weight", f"{prefix}embeddings.tok_embeddings.weight", (shape.vocab_size, D)),
        *norm("embeddings.norm", f"{prefix}embeddings.norm", D, bias=False),
    ]
    for n in range(shape.num_hidden_layers):
        own, theirs = f"layers.{n}", f"{prefix}layers.{n}"
        rules += norm(f"{own}.attention_norm", f"{theirs}.attn_norm", D, bias=False) if n else []
        rules += linear(f"{own}.attention.qkv_proj", [f"{theirs}.attn.Wqkv"], 3 * D, D, bias=False)
        rules += linear(f"{own}.attention.out_proj", [f"{theirs}.attn.Wo"], D, D, bias=False)
        rules += norm(f"{own}.feed_forward_norm", f"{theirs}.mlp_norm", D, bias=False)
        rules += linear(f"{own}.up_gate_proj", [f"{theirs}.mlp.Wi"], 2 * F, D, bias=False)
        rules += linear(f"{own}.down_proj", [f"{theirs}.mlp.Wo"], D, F, bias=False)
    return [*rules, *norm("final_norm", f"{prefix}final_norm", D, bias=False)]


def _table(shape: ModernBertShape) -> list[Rule]:
    """Return the rules of all parameters."""
    D = shape.hidden_size
    return [
        *backbone_rules(shape, "model."),
        *linear("head.dense", ["head.dense"], D, D, bias=False),
        *norm("head.norm", "head.norm", D, bias=False),
        *linear("head.out_proj", ["classifier"], 1, D),
    ]


def _packable(shape: ModernBertShape) -> list[dict[str, int]]:
    """Return, for each layer, the matrices that may be packed, by path, with the width of their rows."""
    D, F = shape.hidden_size, shape.intermediate_size
    matrices = {"attention.qkv_proj": D, "attention.out_proj": D, "up_gate_proj": D, "down_proj": F}
    return [{f"layers.{n}.{name}": width for name, width in matrices.items()} for n in range(shape.num_hidden_layers)]


def _cost(shape: Shape) -> Cost:
    """Return what a token costs: keys of a window are those of three blocks, seen or not."""
    assert isinstance(shape, ModernBertShape)  # as `Family.shape` returns it
    return Cost(shape, gated=True, windows={n: 3 * max(shape.reach, 1) for n, one in enumerate(shape.sliding) if one})


FAMILY = Family(
    name="modernbert",
    title=TITLE,
    example=EXAMPLE,
    accepts=accepts,
    shape=read,
    table=_table,
    ignored=("decoder.",),  # the head of pretraining
    frame=_frame,
    build=ModernBert,
    score_rule="the first token, or the mean of all, as classifier_pooling says",
    mapping=SIGMOID,
    words=_WORDS,
    packable=_packable,
    cost=_cost,
    in_transformers=InTransformers(
        model="ModernBertForSequenceClassification",
        config="ModernBertConfig",
        tokenizer="PreTrainedTokenizerFast",
        special_tokens={
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "mask_token": "[MASK]",
        },
        hidden_states=lambda shape: [
            "embeddings",
            *(f"layers.{n}" for n in range(shape.num_hidden_layers - 1)),
            "final_norm",  # what transformers gives as the last layer's
        ],
        settings=("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"),
    ),
    known=(
        KnownModel(EXAMPLE, "reads the mean of its tokens", 150, "English", "Apache-2.0", 8192),
        KnownModel("ibm-granite/granite-embedding-reranker-english-r2", "", None, "English", "Apache-2.0"),
        KnownModel("cl-nagoya/ruri-v3-reranker-310m", "", 310, "Japanese", "Apache-2.0"),
    ),
)
