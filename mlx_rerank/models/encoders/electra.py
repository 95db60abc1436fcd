"""ELECTRA's discriminator with a single-label classification head.

Follows transformers' ElectraForSequenceClassification ("ELECTRA: Pre-training Text Encoders as Discriminators Rather
Than Generators", Clark et al. 2020). It is a BERT whose embeddings may be narrower than its layers, and then are
projected to their width, and whose head has GELU where BERT's has tanh. tests/families/test_electra.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx

from mlx_rerank.device import operations
from mlx_rerank.models.encoders import bert, post_norm
from mlx_rerank.models.family import is_classifier, wanted
from mlx_rerank.models.known import KnownModel
from mlx_rerank.models.layers import Linear
from mlx_rerank.models.rules import Rule, linear
from mlx_rerank.models.shape import read_shape

_TITLE, _EXAMPLE = "ELECTRA", "cross-encoder/ms-marco-electra-base"
_WANTED = wanted(_TITLE, _EXAMPLE)
_LIKE = bert.FAMILY


@dataclass(frozen=True)
class ElectraShape(bert.BertShape):
    """The numbers of an ELECTRA."""

    embedding_size: int

    @property
    def word_size(self) -> int:
        """Width of a word's embedding."""
        return self.embedding_size


class Embeddings(bert.Embeddings):
    """BERT's, projected to the width of the layers where that is another."""

    def __init__(self, shape: ElectraShape) -> None:
        super().__init__(shape)
        if shape.embedding_size != shape.hidden_size:
            self.projection = Linear(shape.embedding_size, shape.hidden_size)

    def __call__(
        self, input_ids: mx.array, segments: mx.array | None = None, words: mx.array | None = None
    ) -> mx.array:
        """Map int32 ids [B, L] to [B, L, D]."""
        x = super().__call__(input_ids, segments, words)
        return self.projection(x) if "projection" in self else x


def _gelu(x: mx.array) -> mx.array:
    """Return GELU, looked up at each call: the audit watches what is called of `operations`."""
    return operations.gelu(x)


class Electra(post_norm.Encoder):
    """The whole model: token ids in, one logit per pair out."""

    def __init__(self, shape: ElectraShape) -> None:
        super().__init__(shape, Embeddings(shape), _gelu)


def _accepts(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is of an ELECTRA; refuse all but a single-label classifier with two segments."""
    return is_classifier(config, _WANTED, "electra", "Electra", bert.EXPECTED)


def _shape(config: Mapping[str, Any]) -> ElectraShape:
    """Read the numbers of a config.json."""
    return read_shape(ElectraShape, config, bert.SPECIAL_TOKENS)


def _table(shape: ElectraShape) -> list[Rule]:
    """Return the rules of all parameters."""
    D, width = shape.hidden_size, shape.word_size
    return [
        *bert.embedding_rules(shape, "electra.embeddings."),
        *(linear("embeddings.projection", ["electra.embeddings_project"], D, width) if width != D else []),
        *post_norm.layer_rules(shape, "electra.encoder.layer."),
        *linear("head.dense", ["classifier.dense"], D, D),
        *linear("head.out_proj", ["classifier.out_proj"], 1, D),
    ]


FAMILY = replace(
    _LIKE,
    name="electra",
    title=_TITLE,
    example=_EXAMPLE,
    accepts=_accepts,
    shape=_shape,
    table=_table,
    # A buffer of 0, 1, 2 ..., and the heads of pretraining.
    ignored=("electra.embeddings.position_ids", "discriminator_predictions.", "generator_"),
    build=Electra,
    in_transformers=replace(
        _LIKE.in_transformers,
        model="ElectraForSequenceClassification",
        config="ElectraConfig",
        tokenizer="ElectraTokenizer",
        other_tokenizers=("BertTokenizer",),
    ),
    known=(
        KnownModel("cross-encoder/ms-marco-electra-base", "", 109, "English", None, 512),
        KnownModel("cross-encoder/qnli-electra-base", "whether a text answers a question", 109, "English", None, 512),
    ),
)
