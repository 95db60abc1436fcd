"""RoBERTa and DistilRoBERTa with a single-label classification head.

Follows transformers' RobertaForSequenceClassification ("RoBERTa: A Robustly Optimized BERT Pretraining Approach", Liu
et al. 2019). The model is that of XLM-RoBERTa; only its pieces, byte-level BPE, are others.
tests/families/test_roberta.py.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokenizers import Tokenizer

from mlx_rerank.errors import CheckpointError
from mlx_rerank.models.encoders import xlm_roberta
from mlx_rerank.models.family import is_classifier, wanted
from mlx_rerank.models.known import KnownModel
from mlx_rerank.pairs.frames import Frame

_TITLE, _EXAMPLE = "RoBERTa", "cross-encoder/stsb-distilroberta-base"
_WANTED = wanted(_TITLE, _EXAMPLE)
_LIKE = xlm_roberta.FAMILY


def _accepts(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is of a RoBERTa; refuse all but a single-label sequence classifier."""
    return is_classifier(config, _WANTED, "roberta", "Roberta", xlm_roberta.EXPECTED)


def _frame(tokenizer: Tokenizer, shape: xlm_roberta.XLMRobertaShape) -> Frame:
    """Return what surrounds two texts: ``<s> query </s></s> document </s>``."""
    mask = tokenizer.token_to_id("<mask>")  # byte-level BPE knows every text, so <unk> was never trained
    if mask is None:
        raise CheckpointError("tokenizer.json has no <mask>: a RoBERTa needs it")
    return replace(_LIKE.frame(tokenizer, shape), hidden=mask)


FAMILY = replace(
    _LIKE,
    name="roberta",
    title=_TITLE,
    example=_EXAMPLE,
    accepts=_accepts,
    frame=_frame,
    in_transformers=replace(
        _LIKE.in_transformers,
        model="RobertaForSequenceClassification",
        config="RobertaConfig",
        tokenizer="RobertaTokenizer",
    ),
    known=(
        KnownModel("cross-encoder/stsb-distilroberta-base", "similarity of sentences", 82, "English", None, 512),
        KnownModel("cross-encoder/stsb-roberta-base", "similarity of sentences", 125, "English", None, 512),
    ),
)
