"""XLM-RoBERTa as Jina saves it, for code of its own: the same model, whose tensors are renamed and stacked.

The model is that of transformers' XLMRobertaForSequenceClassification; config.json names no model type, only the class
of its configuration in the code beside it, which is not run. tests/families/test_xlm_roberta_flash.py.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlx_rerank.models.encoders import post_norm, xlm_roberta
from mlx_rerank.models.family import is_classifier, wanted
from mlx_rerank.models.known import KnownModel
from mlx_rerank.models.rules import Rule, norm

_TITLE, _EXAMPLE = "Jina's XLM-RoBERTa", "jinaai/jina-reranker-v2-base-multilingual"
_WANTED = wanted(_TITLE, _EXAMPLE)
_CONFIGURATION = "XLMRobertaFlashConfig"
_LIKE = xlm_roberta.FAMILY
_LAYER = post_norm.LayerNames(
    qkv=("mixer.Wqkv",),
    attention_out="mixer.out_proj",
    attention_norm="norm1",
    up="mlp.fc1",
    down="mlp.fc2",
    output_norm="norm2",
)
# Adapters would be tensors of their own. Whether attention is a fused kernel (use_flash_attn) changes no result.
_EXPECTED = xlm_roberta.EXPECTED | {"lora_adaptations": None}


def _accepts(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json names Jina's configuration; refuse all but a single-label sequence classifier."""
    code = config.get("auto_map")
    named = code.get("AutoConfig") if isinstance(code, dict) else None
    if not isinstance(named, str) or named.rpartition(".")[2] != _CONFIGURATION:
        return False
    kind = config.get("model_type", "xlm-roberta")
    return is_classifier({**config, "model_type": kind}, _WANTED, "xlm-roberta", "XLMRoberta", _EXPECTED)


def _table(shape: xlm_roberta.XLMRobertaShape) -> list[Rule]:
    """Return the rules of all parameters: those of XLM-RoBERTa, some made of other tensors."""
    rules = norm("embeddings.norm", "roberta.emb_ln", shape.hidden_size)
    rules += post_norm.layer_rules(shape, "roberta.encoder.layers.", _LAYER)
    sources = {rule.target: rule.sources for rule in rules}
    return [
        replace(rule, sources=sources[rule.target], restored=rule.sources) if rule.target in sources else rule
        for rule in _LIKE.table(shape)
    ]


FAMILY = replace(
    _LIKE,
    name="xlm-roberta-flash",
    title=_TITLE,
    example=_EXAMPLE,
    accepts=_accepts,
    table=_table,
    known=(KnownModel(_EXAMPLE, "weights of torch alone at first", 278, "many", None, 1024),),
)
