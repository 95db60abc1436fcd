"""The families of models that can be run."""

from collections.abc import Mapping
from typing import Any

from mlx_rerank.errors import CheckpointError, UnsupportedModelError
from mlx_rerank.models.decoders import qwen3
from mlx_rerank.models.encoders import (
    bert,
    deberta,
    distilbert,
    electra,
    gte,
    jina,
    modernbert,
    modernbert_modules,
    roberta,
    xlm_roberta,
)
from mlx_rerank.models.family import Family

FAMILIES = (  # the first that accepts a config.json
    jina.FAMILY,
    xlm_roberta.FAMILY,
    bert.FAMILY,
    roberta.FAMILY,
    electra.FAMILY,
    distilbert.FAMILY,
    modernbert_modules.FAMILY,
    modernbert.FAMILY,
    gte.FAMILY,
    deberta.FAMILY,
    qwen3.FAMILY,
)
TEMPLATES = {family.template.name: family.template for family in FAMILIES if family.template}


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family of a Hugging Face config.json.

    Raises:
        UnsupportedModelError: it belongs to no family, or to one that does not run with these settings; the message
            says what was found, and which families run.
    """
    try:
        for family in FAMILIES:
            if family.accepts(config):
                return family
    except UnsupportedModelError as error:
        titles = ", ".join(family.title for family in FAMILIES)
        raise UnsupportedModelError(f"{error}. Families that run: {titles}") from error
    known = " and of ".join(f"{family.title} (such as {family.example})" for family in FAMILIES)
    raise UnsupportedModelError(
        f"mlx-rerank runs single-label cross-encoders of {known}; found model_type {config.get('model_type')!r}, "
        f"architectures {config.get('architectures')}"
    )


def family_named(name: object) -> Family:
    """Return the family that a converted directory records.

    Raises:
        CheckpointError: there is none of that name.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    raise CheckpointError(
        f"config.json records the family {name!r}, which is not one of {', '.join(f.name for f in FAMILIES)}: install "
        "the version of mlx-rerank that converted this model, or convert it again"
    )
