"""Models of the hub that do not run are refused with what was found in their config.json, and with what does run."""

from typing import Any

import pytest

from mlx_rerank.errors import UnsupportedModelError
from mlx_rerank.models import FAMILIES, family_of

NLI = {"0": "contradiction", "1": "entailment", "2": "neutral"}
ONE = {"id2label": {"0": "LABEL_0"}}
RELATIVES: dict[str, tuple[dict[str, Any], str]] = {  # its config.json, in part, and what has to be named
    "jina-reranker-v1-tiny-en": (
        {"model_type": "bert", "architectures": ["JinaBertForSequenceClassification"], **ONE}
        | {"position_embedding_type": "alibi", "hidden_act": "gelu"},
        "'alibi'",
    ),
    "nli of BERT": (
        {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "id2label": NLI},
        "3 labels",
    ),
    "nli of XLM-RoBERTa": (
        {"model_type": "xlm-roberta", "architectures": ["XLMRobertaForSequenceClassification"], "id2label": NLI},
        "3 labels",
    ),
    "e5": ({"model_type": "bert", "architectures": ["BertModel"]}, "an embedding model"),
    "bge-m3": ({"model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"]}, "an embedding model"),
    "ColBERT": ({"model_type": "bert", "architectures": ["HF_ColBERT"]}, "'HF_ColBERT'"),
    "SPLADE": ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "'BertForMaskedLM'"),
    "a chat model": ({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}, "a chat model.*template="),
    "EuroBERT": ({"model_type": "eurobert", "architectures": ["EuroBertForSequenceClassification"]}, "'eurobert'"),
    "T5": ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "'t5'"),
    "unheard of": ({"model_type": "unheard", "architectures": ["UnheardForSequenceClassification"]}, "'unheard'"),
    "nothing": ({}, "model_type None"),
}


@pytest.mark.parametrize("name", RELATIVES)
def test_a_relative_is_refused_with_what_was_found_and_what_runs(name: str) -> None:
    config, found = RELATIVES[name]
    with pytest.raises(UnsupportedModelError, match=f"found .*{found}") as caught:
        family_of(config)
    for family in FAMILIES:
        assert family.title in str(caught.value)
