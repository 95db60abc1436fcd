"""What is known of models on the hub, family by family, and the command that lists it."""

import json
from dataclasses import asdict
from itertools import chain
from math import prod
from typing import Any

import pytest
from commands import run_here

from mlx_rerank.models import FAMILIES
from mlx_rerank.models.encoders import bert, electra, jina, roberta, xlm_roberta

KNOWN = {model.repository: model for model in chain.from_iterable(family.known for family in FAMILIES)}
MANY_WORDS = {"vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
MANY_WORDS |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
BYTEWISE = MANY_WORDS | {"vocab_size": 50265}
FEW_WORDS = {"vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12}
FEW_WORDS |= {"pad_token_id": 0}


def layers(count: int, width: int, heads: int) -> dict[str, Any]:
    """Return the numbers of layers whose feed-forward is four times as wide as they are."""
    sizes = {"hidden_size": width, "intermediate_size": 4 * width}
    return sizes | {"num_hidden_layers": count, "num_attention_heads": heads}


def test_every_family_names_its_example_and_no_model_is_of_two() -> None:
    assert len(KNOWN) == sum(len(family.known) for family in FAMILIES)
    assert {family.example for family in FAMILIES} <= set(KNOWN)


@pytest.mark.parametrize(
    ("name", "family", "numbers"),
    [
        ("BAAI/bge-reranker-v2-m3", xlm_roberta, MANY_WORDS | layers(24, 1024, 16) | {"max_position_embeddings": 8194}),
        ("BAAI/bge-reranker-large", xlm_roberta, MANY_WORDS | layers(24, 1024, 16)),
        ("BAAI/bge-reranker-base", xlm_roberta, MANY_WORDS | layers(12, 768, 12)),
        ("cross-encoder/mmarco-mMiniLMv2-L12-H384-v1", xlm_roberta, MANY_WORDS | layers(12, 384, 12)),
        ("cross-encoder/stsb-distilroberta-base", roberta, BYTEWISE | layers(6, 768, 12)),
        ("cross-encoder/stsb-roberta-base", roberta, BYTEWISE | layers(12, 768, 12)),
        ("cross-encoder/ms-marco-electra-base", electra, FEW_WORDS | layers(12, 768, 12) | {"embedding_size": 768}),
        (
            "jinaai/jina-reranker-v2-base-multilingual",
            jina,
            MANY_WORDS | layers(12, 768, 12) | {"max_position_embeddings": 1026},
        ),
        ("cross-encoder/ms-marco-MiniLM-L6-v2", bert, FEW_WORDS | layers(6, 384, 12)),
        ("cross-encoder/ms-marco-MiniLM-L12-v2", bert, FEW_WORDS | layers(12, 384, 12)),
    ],
)
def test_numbers_are_those_of_the_tables(name: str, family: Any, numbers: dict[str, Any]) -> None:
    shape = family.FAMILY.shape(numbers)
    count = sum(prod(rule.shape) for rule in family.FAMILY.table(shape))
    assert (KNOWN[name].parameters, KNOWN[name].longest_pair) == (round(count / 1e6), shape.max_length)


def test_the_command_lists_them_all() -> None:
    rows = [json.loads(line) for line in run_here("models", "--json").stdout.splitlines()]
    assert rows == [{"family": family.name, **asdict(model)} for family in FAMILIES for model in family.known]
    text = run_here("models").stdout
    assert all(family.title in text for family in FAMILIES)
    for model in KNOWN.values():
        (line,) = (line for line in text.splitlines() if f" {model.repository} " in line)
        for value in (model.parameters, model.languages, model.licence):
            shown = f"{value:,}" if isinstance(value, int) else value
            assert shown is None or shown in line
        assert model.longest_pair is None or f"{model.longest_pair:,} tokens" in line
