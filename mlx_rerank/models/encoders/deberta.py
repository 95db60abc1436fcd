"""DeBERTa-v2 and -v3 with a single-label classification head, such as mixedbread's first rerankers.

Follows transformers' DebertaV2ForSequenceClassification ("DeBERTa: Decoding-enhanced BERT with Disentangled Attention",
He et al. 2021): no positions in the embeddings; instead, attention to the distances between tokens, of which far ones
share a bucket. Tokens of padding are hidden from all others and not zeroed besides, which changes no result.
tests/families/test_deberta.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from tokenizers import Tokenizer

from mlx_rerank.device import disentangled, operations
from mlx_rerank.errors import CheckpointError
from mlx_rerank.models.cost import Cost
from mlx_rerank.models.encoders import post_norm
from mlx_rerank.models.family import (
    Family,
    InTransformers,
    is_classifier,
    require_special_tokens,
    require_values,
    wanted,
)
from mlx_rerank.models.known import KnownModel
from mlx_rerank.models.layers import LayerNorm, look_up, some_outputs
from mlx_rerank.models.mapping import SIGMOID
from mlx_rerank.models.rules import Rule, copied, linear, norm
from mlx_rerank.models.shape import Shape, read_shape
from mlx_rerank.pairs.frames import Frame

_TITLE, _EXAMPLE = "DeBERTa-v2", "mixedbread-ai/mxbai-rerank-base-v1"
_WANTED = wanted(_TITLE, _EXAMPLE)
_LAYER = post_norm.BERT_LAYER._replace(qkv=tuple(f"attention.self.{part}_proj" for part in ("query", "key", "value")))
_SPECIAL_TOKENS = 3  # [CLS] query [SEP] document [SEP]
# What a config.json means that does not say, in transformers.
_UNSAID = {
    "relative_attention": False,
    "position_buckets": -1,
    "max_relative_positions": -1,
    "position_biased_input": True,
    "pos_att_type": None,
    "share_att_key": False,
    "norm_rel_ebd": "none",
    "type_vocab_size": 0,
    "conv_kernel_size": 0,
}


@dataclass(frozen=True)
class DebertaShape(Shape):
    """The numbers of a DeBERTa-v2.

    `position_buckets` has buckets for distances of one sign; distances from `max_relative_positions` on share the last.
    """

    position_buckets: int
    max_relative_positions: int


class DebertaCost(Cost):
    """The cost of layers whose attention also has products with the distances from -L to L, both ways."""

    def operations(self, length: int) -> int:
        """Return all layers' operations on one token; see `Cost`."""
        distances = 2 * 2 * length * self.shape.hidden_size  # of queries and of keys, with 2 L distances each
        return super().operations(length) + 2 * self.shape.num_hidden_layers * distances

    def bytes(self, length: int, itemsize: int) -> int:
        """Return the most that a layer holds at once for a token; see `Cost`."""
        H, D = self.shape.num_attention_heads, self.shape.hidden_size
        scores = 8 * H * length + 5 * D  # with 2 L distances, both ways; their sum, scores, before and after softmax
        return max(super().bytes(length, itemsize), itemsize * scores)


class Distances(NamedTuple):
    """What the layers need to know of a batch beside its tokens.

    Args:
        mask: bool [B, 1, 1, L], or None where every token is real.
        table: embeddings of the buckets that rows of this length use, normalised, [R, D].
        buckets: int32 [2 L + 1], the row of the table for each distance from -L to L.
    """

    mask: mx.array | None
    table: mx.array
    buckets: mx.array


def bucket_of(distances: np.ndarray, buckets: int, most: int) -> np.ndarray:
    """Return the rows of the table of distances: near ones have a row each, far ones share rows by their logarithm.

    Args:
        distances: int [...], the query's place less the key's.
        buckets: for distances of one sign; the table has twice as many rows.
        most: the distance that has the last bucket.

    Returns:
        int32 [...].

    Source: transformers' make_log_bucket_position, in float32; tests/families/test_deberta.py.
    """
    middle, far = buckets // 2, np.abs(distances).astype(np.float32)
    scale = np.log(np.float32((most - 1) / middle))
    logarithm = np.log(np.maximum(far, middle) / np.float32(middle)) / scale * np.float32(middle - 1)
    rows = np.where(far <= middle, far, np.ceil(logarithm) + middle) * np.sign(distances)
    return np.clip(rows + buckets, 0, 2 * buckets - 1).astype(np.int32)


class Embeddings(nn.Module):
    """Word embeddings, normalised."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.norm = LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)

    def __call__(
        self, input_ids: mx.array, segments: mx.array | None = None, words: mx.array | None = None
    ) -> mx.array:
        """Map int32 ids [B, L] to [B, L, D]. There are no segments."""
        return self.norm(look_up(self.word_embeddings, input_ids, self.norm.weight.dtype) if words is None else words)


class SelfAttention(post_norm.SelfAttention):
    """Multi-head attention to contents and distances; queries and keys of distances come from the tokens' own maps."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.scale = (3 * shape.hidden_size // shape.num_attention_heads) ** -0.5  # three products are added

    def __call__(self, x: mx.array, mask: Any, *, first_token_only: bool = False) -> mx.array:
        """Map [B, L, D] to [B, L, D], or to the first token's [B, 1, D]; the mask is one of `Distances`."""
        B, L, D = x.shape
        n = 1 if first_token_only else L
        if first_token_only:
            q = some_outputs(self.qkv_proj, x[:, 0], slice(0, D))
            k, v = mx.split(some_outputs(self.qkv_proj, x, slice(D, 3 * D)), 2, axis=-1)
        else:
            q, k, v = mx.split(self.qkv_proj(x), 3, axis=-1)
        queries, keys = mx.split(some_outputs(self.qkv_proj, mask.table, slice(0, 2 * D)), 2, axis=-1)
        keys = keys[mask.buckets[: n + L][::-1]]  # of the distances n - 1 ... -L
        queries = queries[mask.buckets[1 : n + L + 1]]  # of the distances 1 - L ... n
        qkv = tuple(part.reshape(B, -1, self.num_heads, D // self.num_heads).swapaxes(1, 2) for part in (q, k, v))
        places = tuple(part.reshape(n + L, self.num_heads, -1).swapaxes(0, 1) for part in (keys, queries))
        attended = disentangled.disentangled_attention(qkv, places, self.scale, mask.mask)  # pyright: ignore
        return self.out_proj(attended.swapaxes(1, 2).reshape(B, -1, D))


class Layer(post_norm.Layer):
    """One encoder layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.attention = SelfAttention(shape)


def _gelu(x: mx.array) -> mx.array:
    """Return GELU, looked up at each call: audits replace it."""
    return operations.gelu(x)


class Deberta(post_norm.Encoder):
    """The whole model: token ids in, one logit per pair out."""

    def __init__(self, shape: DebertaShape) -> None:
        super().__init__(
            shape, Embeddings(shape), lambda x: operations.gelu(x)
        )  # looked up at each call, as audits replace it
        self.layers = [Layer(shape) for _ in range(shape.num_hidden_layers)]
        self.distance_embeddings = nn.Embedding(2 * shape.position_buckets, shape.hidden_size)
        self.distance_norm = LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)

    def seen_by_layers(self, mask: mx.array | None, length: int) -> Distances:
        """Return the mask and the distances of rows of a length."""
        shape: Any = self.shape
        rows = bucket_of(np.arange(-length, length + 1), shape.position_buckets, shape.max_relative_positions)
        first = int(rows[0])
        table = self.distance_norm(self.distance_embeddings.weight[first : int(rows[-1]) + 1])
        return Distances(mask, table, mx.array(rows - first))


def _said(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json with what it does not say; kinds of attention as a sorted list."""
    said = _UNSAID | dict(config)
    kinds = said["pos_att_type"]
    said["pos_att_type"] = sorted(kinds.lower().replace(" ", "").split("|") if isinstance(kinds, str) else kinds or ())
    return said


def _accepts(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is of a DeBERTa-v2; refuse all but a single-label one with distances as in v3."""
    if not is_classifier(config, _WANTED, "deberta-v2", "DebertaV2", {}):
        return False
    hidden = config.get("hidden_size")
    expected = {
        "hidden_act": "gelu",
        "pooler_hidden_act": "gelu",
        "type_vocab_size": 0,
        "conv_kernel_size": 0,
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["c2p", "p2c"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "pooler_hidden_size": hidden,
        "embedding_size": hidden,
    }
    said = _said(config)
    if isinstance(hidden, int) and isinstance(heads := config.get("num_attention_heads"), int) and heads > 0:
        expected["attention_head_size"] = hidden // heads
    require_values(said, _WANTED, expected)
    if said["position_buckets"] == -1:
        require_values(said, _WANTED, {"position_buckets": "of 2 or more"})
    return True


def _shape(config: Mapping[str, Any]) -> DebertaShape:
    """Read the numbers of a config.json.

    Raises:
        CheckpointError: there are more near distances than distances that are told apart.
    """
    said = _said(config)
    most = said["max_relative_positions"]
    if isinstance(most, int) and most < 1:  # then as many as places, as in transformers
        said["max_relative_positions"] = config.get("max_position_embeddings")
    shape = read_shape(DebertaShape, said, _SPECIAL_TOKENS)
    middle = shape.position_buckets // 2
    if not 0 < middle < shape.max_relative_positions - 1:
        raise CheckpointError(
            f"config.json: position_buckets {shape.position_buckets} must be from 2 to less than twice the farthest "
            f"distance, {shape.max_relative_positions - 1} (max_relative_positions, or max_position_embeddings, less 1)"
        )
    return shape


def _frame(tokenizer: Tokenizer, shape: DebertaShape) -> Frame:
    """Return what surrounds two texts: ``[CLS] query [SEP] document [SEP]``."""
    require_special_tokens(tokenizer, {"[PAD]": shape.pad_token_id})
    start, end, mask = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[MASK]"))
    if start is None or end is None or mask is None:
        raise CheckpointError(
            f"tokenizer.json has [CLS] at {start}, [SEP] at {end} and [MASK] at {mask}: a DeBERTa needs all three"
        )
    return Frame((start,), (end,), (end,), shape.pad_token_id, hidden=mask)


def _table(shape: DebertaShape) -> list[Rule]:
    """Return the rules of all parameters."""
    D, rows = shape.hidden_size, 2 * shape.position_buckets
    return [
        copied(f"{post_norm.WORDS}.weight", "deberta.embeddings.word_embeddings.weight", (shape.vocab_size, D)),
        *norm("embeddings.norm", "deberta.embeddings.LayerNorm", D),
        copied("distance_embeddings.weight", "deberta.encoder.rel_embeddings.weight", (rows, D)),
        *norm("distance_norm", "deberta.encoder.LayerNorm", D),
        *post_norm.layer_rules(shape, "deberta.encoder.layer.", _LAYER),
        *linear("head.dense", ["pooler.dense"], D, D),
        *linear("head.out_proj", ["classifier"], 1, D),
    ]


FAMILY = Family(
    name="deberta-v2",
    title=_TITLE,
    example=_EXAMPLE,
    accepts=_accepts,
    shape=_shape,
    table=_table,
    # Positions that the original does not read either, and the heads of pretraining.
    ignored=("deberta.embeddings.position_", "lm_predictions.", "mask_predictions.", "cls."),
    frame=_frame,
    build=Deberta,
    score_rule="the first token",
    mapping=SIGMOID,
    words=post_norm.WORDS,
    packable=post_norm.packable,
    cost=DebertaCost,
    in_transformers=InTransformers(
        model="DebertaV2ForSequenceClassification",
        config="DebertaV2Config",
        tokenizer="DebertaV2Tokenizer",
        special_tokens=dict.fromkeys(("bos_token", "cls_token"), "[CLS]")
        | dict.fromkeys(("eos_token", "sep_token"), "[SEP]")
        | {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "mask")},
        hidden_states=post_norm.hidden_states,
        settings=("position_buckets", "share_att_key", "norm_rel_ebd"),
    ),
    known=tuple(
        KnownModel(f"mixedbread-ai/mxbai-rerank-{size}-v1", licence="Apache-2.0", longest_pair=512)
        for size in ("xsmall", "base", "large")
    ),
)
