"""BERT with a single-label classification head, such as the cross-encoders trained on MS MARCO.

Follows transformers' BertForSequenceClassification ("BERT: Pre-training of Deep Bidirectional Transformers", Devlin et
al. 2019): two segments, positions from 0, and the pooler as the head's dense layer. tests/families/test_bert.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from tokenizers import Tokenizer

from mlx_rerank.errors import CheckpointError, InputError
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
from mlx_rerank.models.rules import Rule, copied, linear, norm
from mlx_rerank.models.shape import Shape, read_shape
from mlx_rerank.pairs.frames import Frame

_TITLE, _EXAMPLE = "BERT", "cross-encoder/ms-marco-MiniLM-L6-v2"
_WANTED = wanted(_TITLE, _EXAMPLE)
SPECIAL_TOKENS = 3  # [CLS] query [SEP] document [SEP]
_TOKENS = "bert.embeddings."
EXPECTED = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "feed_forward_type": "original",  # a gated one is another model's that calls itself a BERT
    "is_decoder": False,
    "type_vocab_size": 2,
}


@dataclass(frozen=True)
class BertShape(Shape):
    """The numbers of a BERT."""

    type_vocab_size: int


class Embeddings(post_norm.Embeddings):
    """Word, position and segment embeddings."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__(shape)
        self.token_type_embeddings = nn.Embedding(shape.type_vocab_size, shape.word_size)

    def places(self, input_ids: mx.array, segments: mx.array | None) -> mx.array:
        """Return embeddings of positions, which count from 0 in every row, and of segments.

        Raises:
            InputError: the segments are missing: a query would be taken for a part of its document.
        """
        if segments is None:
            raise InputError("this model tells queries from documents by segments: give it those of the batch")
        positions = self.position_embeddings(mx.arange(input_ids.shape[1]))
        return positions + self.token_type_embeddings(segments.astype(mx.int32))


class Bert(post_norm.Encoder):
    """The whole model: token ids in, one logit per pair out."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__(shape, Embeddings(shape))


def _accepts(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is of a BERT; refuse all but a single-label sequence classifier with two segments."""
    return is_classifier(config, _WANTED, "bert", "Bert", EXPECTED)


def _shape(config: Mapping[str, Any]) -> BertShape:
    """Read the numbers of a config.json."""
    return read_shape(BertShape, config, SPECIAL_TOKENS)


def _frame(tokenizer: Tokenizer, shape: BertShape) -> Frame:
    """Return what surrounds two texts: ``[CLS] query [SEP] document [SEP]``, the document being the second segment."""
    require_special_tokens(tokenizer, {"[PAD]": shape.pad_token_id})
    start, end, mask = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[MASK]"))
    if start is None or end is None or mask is None:
        raise CheckpointError(
            f"tokenizer.json has [CLS] at {start}, [SEP] at {end} and [MASK] at {mask}: a BERT needs all three"
        )
    return Frame((start,), (end,), (end,), shape.pad_token_id, hidden=mask, segments=True)


def embedding_rules(shape: BertShape, prefix: str) -> list[Rule]:
    """Return the rules of the embeddings, whose tensors' names begin with a prefix."""
    width = shape.word_size
    tables = {
        "word_embeddings": shape.vocab_size,
        "position_embeddings": shape.max_position_embeddings,
        "token_type_embeddings": shape.type_vocab_size,
    }
    return [
        *(copied(f"embeddings.{name}.weight", f"{prefix}{name}.weight", (n, width)) for name, n in tables.items()),
        *norm("embeddings.norm", prefix + "LayerNorm", width),
    ]


def _table(shape: BertShape) -> list[Rule]:
    """Return the rules of all parameters."""
    D = shape.hidden_size
    return [
        *embedding_rules(shape, _TOKENS),
        *post_norm.layer_rules(shape, "bert.encoder.layer."),
        *linear("head.dense", ["bert.pooler.dense"], D, D),
        *linear("head.out_proj", ["classifier"], 1, D),
    ]


def _known(name: str, parameters: int | None = None, special: str = LEFT_AS_LOGITS) -> KnownModel:
    """Return what is known of a cross-encoder trained on MS MARCO."""
    return KnownModel(f"cross-encoder/ms-marco-{name}", special, parameters, "English", "Apache-2.0", 512)


FAMILY = Family(
    name="bert",
    title=_TITLE,
    example=_EXAMPLE,
    accepts=_accepts,
    shape=_shape,
    table=_table,
    ignored=(_TOKENS + "position_ids", "cls."),  # a buffer of 0, 1, 2 ..., and the heads of pretraining
    frame=_frame,
    build=Bert,
    score_rule="the first token",
    mapping=SIGMOID,
    words=post_norm.WORDS,
    packable=post_norm.packable,
    cost=Cost,
    in_transformers=InTransformers(
        model="BertForSequenceClassification",
        config="BertConfig",
        tokenizer="BertTokenizer",
        special_tokens={
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "mask_token": "[MASK]",
        },
        hidden_states=post_norm.hidden_states,
    ),
    known=(
        _known("MiniLM-L6-v2", 23),
        _known("MiniLM-L12-v2", 33),
        _known("MiniLM-L4-v2"),
        _known("MiniLM-L2-v2"),
        _known("TinyBERT-L2-v2"),
        _known("TinyBERT-L2", special=""),
    ),
)
