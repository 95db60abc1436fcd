"""XLM-RoBERTa with a single-label classification head, the cross-encoder behind the bge rerankers.

Follows transformers' XLMRobertaForSequenceClassification ("Unsupervised Cross-lingual Representation Learning at
Scale", Conneau et al. 2020); the one row of token type embeddings is part of the position table.
tests/parity/test_logits.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from tokenizers import Tokenizer

from mlx_rerank.models.cost import Cost
from mlx_rerank.models.encoders import post_norm
from mlx_rerank.models.family import (
    Family,
    InTransformers,
    is_classifier,
    require_special_tokens,
    wanted,
)
from mlx_rerank.models.known import LEFT_AS_LOGITS, KnownModel
from mlx_rerank.models.mapping import SIGMOID
from mlx_rerank.models.rules import Join, Rule, Shapes, Source, copied, linear, norm
from mlx_rerank.models.shape import Shape, read_shape
from mlx_rerank.pairs.frames import Frame

_TITLE, _EXAMPLE = "XLM-RoBERTa", "BAAI/bge-reranker-v2-m3"
_WANTED = wanted(_TITLE, _EXAMPLE)
_SPECIAL_TOKENS = 4  # <s> query </s></s> document </s>
_TOKENS = "roberta.embeddings."
EXPECTED = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False, "type_vocab_size": 1}


@dataclass(frozen=True)
class XLMRobertaShape(Shape):
    """The numbers of an XLM-RoBERTa."""

    bos_token_id: int
    eos_token_id: int

    @property
    def max_length(self) -> int:
        """Most tokens of a pair, special tokens included: positions start after the padding id."""
        return self.max_position_embeddings - self.pad_token_id - 1


class Embeddings(post_norm.Embeddings):
    """Word plus position embeddings."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.pad_token_id = shape.pad_token_id

    def places(self, input_ids: mx.array, segments: mx.array | None) -> mx.array:
        """Return embeddings of positions: real tokens count up from `pad_token_id + 1`, padding stays on its id."""
        real = (input_ids != self.pad_token_id).astype(mx.int32)
        positions = mx.cumsum(real, axis=1) * real + self.pad_token_id  # (B, L)
        return self.position_embeddings(positions)


class XLMRoberta(post_norm.Encoder):
    """The whole model: token ids in, one logit per pair out."""

    def __init__(self, shape: XLMRobertaShape) -> None:
        super().__init__(shape, Embeddings(shape))


def _accepts(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is of an XLM-RoBERTa; refuse all but a single-label sequence classifier."""
    return is_classifier(config, _WANTED, "xlm-roberta", "XLMRoberta", EXPECTED)


def _shape(config: Mapping[str, Any]) -> XLMRobertaShape:
    """Read the numbers of a config.json."""
    return read_shape(XLMRobertaShape, config, _SPECIAL_TOKENS)


def _frame(tokenizer: Tokenizer, shape: XLMRobertaShape) -> Frame:
    """Return what surrounds two texts: ``<s> query </s></s> document </s>``."""
    start, end, pad = shape.bos_token_id, shape.eos_token_id, shape.pad_token_id
    require_special_tokens(tokenizer, {"<s>": start, "</s>": end, "<pad>": pad})
    # <unk> hides words. Questions of examples/corpus decided that: the word of most weight was in the answering
    # sentence more often than with the tokens deleted, and that sentence had more of the weight than with <mask>.
    unknown = tokenizer.token_to_id("<unk>")
    return Frame((start,), (end, end), (end,), pad, pad if unknown is None else unknown)


def _fold(positions: mx.array, token_types: mx.array) -> mx.array:
    """Add the one token type row to every position, in float32 so that the sum is rounded once."""
    return positions.astype(mx.float32) + token_types.astype(mx.float32)


def _unfold(value: np.ndarray, shapes: Shapes) -> list[np.ndarray]:
    """Return positions unchanged and a token type row of zeros: the positions already include that row."""
    return [value, np.zeros(shapes[1], dtype=np.float32)]


def rules(shape: XLMRobertaShape, norm_name: str, layers: str, names: post_norm.LayerNames) -> list[Rule]:
    """Return the rules of all parameters.

    Args:
        shape: of the model.
        norm_name: of the embeddings' normalisation in a checkpoint.
        layers: how the names of the layers' tensors begin there, before the layer's number.
        names: of a layer's modules there.
    """
    D = shape.hidden_size
    places = (
        Source(_TOKENS + "position_embeddings.weight", (shape.max_position_embeddings, D)),
        Source(_TOKENS + "token_type_embeddings.weight", (1, D)),
    )
    return [
        copied(f"{post_norm.WORDS}.weight", _TOKENS + "word_embeddings.weight", (shape.vocab_size, D)),
        Rule("embeddings.position_embeddings.weight", places, Join(_fold, _unfold, lambda shapes: shapes[0])),
        *norm("embeddings.norm", norm_name, D),
        *post_norm.layer_rules(shape, layers, names),
        *linear("head.dense", ["classifier.dense"], D, D),
        *linear("head.out_proj", ["classifier.out_proj"], 1, D),
    ]


def _table(shape: XLMRobertaShape) -> list[Rule]:
    """Return the rules of all parameters."""
    return rules(shape, _TOKENS + "LayerNorm", "roberta.encoder.layer.", post_norm.BERT_LAYER)


FAMILY = Family(
    name="xlm-roberta",
    title=_TITLE,
    example=_EXAMPLE,
    accepts=_accepts,
    shape=_shape,
    table=_table,
    # A buffer of 0, 1, 2 ..., the pooler of a model without a head, and the head of pretraining.
    ignored=(_TOKENS + "position_ids", "roberta.pooler.", "lm_head."),
    frame=_frame,
    build=XLMRoberta,
    score_rule="the first token",
    mapping=SIGMOID,
    words=post_norm.WORDS,
    packable=post_norm.packable,
    cost=Cost,
    in_transformers=InTransformers(
        model="XLMRobertaForSequenceClassification",
        config="XLMRobertaConfig",
        tokenizer="XLMRobertaTokenizer",
        special_tokens={
            "bos_token": "<s>",
            "cls_token": "<s>",
            "eos_token": "</s>",
            "sep_token": "</s>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
        },
        hidden_states=post_norm.hidden_states,
    ),
    known=(
        KnownModel("BAAI/bge-reranker-v2-m3", "", 568, "many", "Apache-2.0", 8192),
        KnownModel("BAAI/bge-reranker-large", "", 560, "Chinese, English", None, 512),
        KnownModel("BAAI/bge-reranker-base", "", 278, "Chinese, English", None, 512),
        KnownModel("cross-encoder/mmarco-mMiniLMv2-L12-H384-v1", LEFT_AS_LOGITS, 118, "many", "Apache-2.0", 512),
        KnownModel("maidalun1020/bce-reranker-base_v1", licence="Apache-2.0", longest_pair=512),
    ),
)
