"""DistilBERT with a single-label classification head.

Follows transformers' DistilBertForSequenceClassification ("DistilBERT, a distilled version of BERT", Sanh et al. 2019):
BERT's layers without segments, under other names, and ReLU in the head. Its positions are a table, learned or filled
with sines, and either way stored. tests/families/test_distilbert.py.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import mlx.core as mx
from tokenizers import Tokenizer

from mlx_rerank.errors import CheckpointError
from mlx_rerank.models.encoders import bert, post_norm
from mlx_rerank.models.family import is_classifier, wanted
from mlx_rerank.models.known import KnownModel
from mlx_rerank.models.rules import Rule, copied, linear, norm
from mlx_rerank.models.shape import Shape, read_shape
from mlx_rerank.pairs.frames import Frame

_TITLE, _EXAMPLE = "DistilBERT", "ml6team/cross-encoder-mmarco-german-distilbert-base"
_WANTED = wanted(_TITLE, _EXAMPLE)
_TOKENS = "distilbert.embeddings."
_LIKE = bert.FAMILY
_NAMES = {  # of the numbers of a config.json
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "max_position_embeddings": "max_position_embeddings",
    "pad_token_id": "pad_token_id",
}
_EPS = 1e-12  # of every normalisation; no config.json states it
_LAYER = post_norm.LayerNames(
    qkv=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    attention_out="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    output_norm="output_layer_norm",
)


class Embeddings(post_norm.Embeddings):
    """Word plus position embeddings."""

    def places(self, input_ids: mx.array, segments: mx.array | None) -> mx.array:
        """Return embeddings of positions, which count from 0 in every row."""
        return self.position_embeddings(mx.arange(input_ids.shape[1]))[None]


def _relu(x: mx.array) -> mx.array:
    """Return what is above 0, and 0 for all else. MLX's own is compiled, which on a CPU starts a C++ compiler."""
    return mx.maximum(x, 0.0)


class DistilBert(post_norm.Encoder):
    """The whole model: token ids in, one logit per pair out."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape, Embeddings(shape), _relu)


def _accepts(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is of a DistilBERT; refuse all but a single-label sequence classifier."""
    return is_classifier(config, _WANTED, "distilbert", "DistilBert", {"activation": "gelu"})


def _shape(config: Mapping[str, Any]) -> Shape:
    """Read the numbers of a config.json."""
    for name in _NAMES.values():
        if name not in config:
            raise CheckpointError(f"config.json has no {name!r}; a checkpoint must state its shape")
    numbers = {ours: config[theirs] for ours, theirs in _NAMES.items()}
    return read_shape(Shape, numbers | {"layer_norm_eps": _EPS}, bert.SPECIAL_TOKENS)


def _frame(tokenizer: Tokenizer, shape: Shape) -> Frame:
    """Return what surrounds two texts: ``[CLS] query [SEP] document [SEP]``, without segments."""
    return replace(_LIKE.frame(tokenizer, shape), segments=False)


def _table(shape: Shape) -> list[Rule]:
    """Return the rules of all parameters."""
    D = shape.hidden_size
    tables = {"word_embeddings": shape.vocab_size, "position_embeddings": shape.max_position_embeddings}
    return [
        *(copied(f"embeddings.{name}.weight", f"{_TOKENS}{name}.weight", (rows, D)) for name, rows in tables.items()),
        *norm("embeddings.norm", _TOKENS + "LayerNorm", D),
        *post_norm.layer_rules(shape, "distilbert.transformer.layer.", _LAYER),
        *linear("head.dense", ["pre_classifier"], D, D),
        *linear("head.out_proj", ["classifier"], 1, D),
    ]


FAMILY = replace(
    _LIKE,
    name="distilbert",
    title=_TITLE,
    example=_EXAMPLE,
    accepts=_accepts,
    shape=_shape,
    table=_table,
    ignored=(_TOKENS + "position_ids", "vocab_"),  # a buffer of 0, 1, 2 ..., and the head of pretraining
    frame=_frame,
    build=DistilBert,
    in_transformers=replace(
        _LIKE.in_transformers,
        model="DistilBertForSequenceClassification",
        config="DistilBertConfig",
        tokenizer="DistilBertTokenizer",
        other_tokenizers=("BertTokenizer",),
    ),
    known=(KnownModel(_EXAMPLE, languages="German", longest_pair=512),),
)
