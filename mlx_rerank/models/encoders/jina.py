"""jina-reranker-v2: an XLM-RoBERTa whose makers run it with code of their own, and so name its tensors otherwise.

Follows the XLMRobertaForSequenceClassification that the config.json of jinaai/jina-reranker-v2-base-multilingual names
in its auto_map, which computes what transformers' class of that name does. tests/families/test_jina.py.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlx_rerank.models.encoders import post_norm, xlm_roberta
from mlx_rerank.models.family import is_classifier, wanted
from mlx_rerank.models.known import KnownModel
from mlx_rerank.models.rules import Rule

_TITLE, _EXAMPLE = "jina-reranker-v2", "jinaai/jina-reranker-v2-base-multilingual"
_WANTED = wanted(_TITLE, _EXAMPLE)
_LIKE = xlm_roberta.FAMILY
_CODE = "XLMRobertaFlashConfig"  # of the makers
_LAYER = post_norm.LayerNames(
    qkv=("mixer.Wqkv",),
    attention_out="mixer.out_proj",
    attention_norm="norm1",
    up="mlp.fc1",
    down="mlp.fc2",
    output_norm="norm2",
)
# What the makers' code would do otherwise. Whether it has use_flash_attn changes how attention is computed, not what.
_EXPECTED = xlm_roberta.EXPECTED | {"lora_adaptations": None, "emb_pooler": None}


def _accepts(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json names the makers' code; refuse all but a single-label sequence classifier.

    It has no model_type, or that of an XLM-RoBERTa.
    """
    code = config.get("auto_map")
    named = str(code.get("AutoConfig")) if isinstance(code, Mapping) else ""
    if named.rpartition(".")[2] != _CODE or config.get("model_type") not in (None, "", "xlm-roberta"):
        return False
    return is_classifier({**config, "model_type": "xlm-roberta"}, _WANTED, "xlm-roberta", "XLMRoberta", _EXPECTED)


def _table(shape: xlm_roberta.XLMRobertaShape) -> list[Rule]:
    """Return the rules of all parameters."""
    return xlm_roberta.rules(shape, "roberta.emb_ln", "roberta.encoder.layers.", _LAYER)


FAMILY = replace(
    _LIKE,
    name="jina-reranker-v2",
    title=_TITLE,
    example=_EXAMPLE,
    accepts=_accepts,
    table=_table,
    in_transformers=replace(_LIKE.in_transformers, table=_LIKE.table),
    known=(KnownModel(_EXAMPLE, "", 278, "many", "CC-BY-NC-4.0", 1024),),
)
