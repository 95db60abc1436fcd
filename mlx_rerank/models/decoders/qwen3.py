"""Qwen3-Reranker: a language model that answers yes or no, as published, and as copies that are classifiers.

Follows transformers' Qwen3ForCausalLM and Qwen3ForSequenceClassification, and the rule of its makers' model card
("Qwen3 Embedding", Zhang et al. 2025): the prompt's prefix, its content as one text cut on the right, its suffix; the
logit is that of "yes" less that of "no", so that its sigmoid is their softmax. tests/families/test_qwen3.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from tokenizers import Tokenizer

from mlx_rerank.errors import CheckpointError, UnsupportedModelError
from mlx_rerank.models.decoders import language_model
from mlx_rerank.models.decoders.language_model import DecoderShape, LanguageModel, Switches
from mlx_rerank.models.family import Family, InTransformers, require_values
from mlx_rerank.models.known import KnownModel
from mlx_rerank.models.mapping import SIGMOID
from mlx_rerank.models.rules import Join, Rule, Shapes, Source
from mlx_rerank.models.shape import read_shape
from mlx_rerank.models.templates import Template, declared
from mlx_rerank.pairs.frames import Frame

_EXAMPLE = "Qwen/Qwen3-Reranker-0.6B"
_WANTED = f"mlx-rerank runs rerankers made of Qwen3, such as {_EXAMPLE}"
_SWITCHES = Switches(qk_norm=True)
_PAD, _SPACE = "<|endoftext|>", "Ġ"  # a space as byte-level tokenizers write it
TEMPLATE = Template(
    name="qwen3-reranker",
    prefix="<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
    content="<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}",
    suffix="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    instruction="Given a web search query, retrieve relevant passages that answer the query",
    true_token="yes",
    false_token="no",
    repositories=tuple(f"Qwen/Qwen3-Reranker-{size}" for size in ("0.6B", "4B", "8B")),
)


@dataclass(frozen=True)
class Qwen3Shape(DecoderShape):
    """The numbers of a Qwen3 that answers: two tokens, and whether their rows are those of the word embeddings."""

    true_token_id: int
    false_token_id: int
    tie_word_embeddings: bool


def _accepts(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is of a Qwen3; refuse a chat model that no template makes a reranker."""
    if config.get("model_type") != "qwen3":
        return False
    found = config.get("architectures")
    if found != ["Qwen3ForCausalLM"]:
        raise UnsupportedModelError(f"{_WANTED}; found another head: architectures {found}")
    name = declared(config).get("name")
    if name != TEMPLATE.name:
        what = "a chat model" if name is None else f"the template {name!r}"
        raise UnsupportedModelError(
            f"{_WANTED}; found {what}: if it was trained to rerank, say with which prompt, by template=... or "
            f"--template, one of {TEMPLATE.name!r}"
        )
    expected = {"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False, "rope_scaling": None}
    require_values(config, _WANTED, expected)
    rope = config.get("rope_parameters") or {}
    require_values(rope, _WANTED, {"rope_type": "default"})
    return True


def _shape(config: Mapping[str, Any]) -> Qwen3Shape:
    """Read the numbers of a config.json, whose names differ between versions of transformers."""
    found = {"tie_word_embeddings": False, "pad_token_id": 0, **config, **declared(config)}
    if found["pad_token_id"] is None:  # its makers leave it out: no token sees padding
        found["pad_token_id"] = 0
    rope = config.get("rope_parameters") or {}
    for ours, theirs, given in (("layer_norm_eps", "rms_norm_eps", config), ("rope_theta", "rope_theta", rope)):
        if theirs in given:
            found[ours] = given[theirs]
    shape = read_shape(Qwen3Shape, found, 0)
    if shape.num_attention_heads % shape.num_key_value_heads or shape.head_dim % 2:
        raise CheckpointError(
            f"config.json has num_attention_heads {shape.num_attention_heads}, num_key_value_heads "
            f"{shape.num_key_value_heads} and head_dim {shape.head_dim}: the first must be a multiple of the second, "
            "and the third even"
        )
    if max(shape.true_token_id, shape.false_token_id) >= shape.vocab_size:
        raise CheckpointError(f"config.json reads tokens {dict(declared(config))} of {shape.vocab_size}")
    return shape


def _frame(tokenizer: Tokenizer, shape: Qwen3Shape) -> Frame:
    """Return the published prompt; a space hides a word."""
    names = (_PAD, _SPACE, "<|im_start|>", "<|im_end|>")
    pad, space, *marks = map(tokenizer.token_to_id, names)
    if pad is None or space is None or None in marks:
        missing = [name for name in names if tokenizer.token_to_id(name) is None]
        raise CheckpointError(f"tokenizer.json has no {', '.join(missing)}: a Qwen3 reranker needs all of {names}")
    return TEMPLATE.frame(tokenizer, pad, space)


def _row(shape: Qwen3Shape) -> Rule:
    """Return the rule of the head's row: that of "yes" less that of "no", as a classifier's weight."""
    yes, no, D = shape.true_token_id, shape.false_token_id, shape.hidden_size

    def join(table: mx.array) -> mx.array:
        rows = table[mx.array([yes, no])].astype(mx.float32)
        return rows[:1] - rows[1:]

    def separate(row: np.ndarray, _: Shapes) -> list[np.ndarray]:
        return [row]

    name = "model.embed_tokens.weight" if shape.tie_word_embeddings else "lm_head.weight"
    source = Source(name, (shape.vocab_size, D))
    how = Join(join, separate, lambda _: (1, D))
    return Rule("head.row", (source,), how, restored=(Source("score.weight", (1, D)),), float32=True)


def _table(shape: Qwen3Shape) -> list[Rule]:
    """Return the rules of all parameters."""
    return [_row(shape), *language_model.layer_rules(shape, _SWITCHES)]


FAMILY = Family(
    name="qwen3",
    title="Qwen3",
    example=_EXAMPLE,
    accepts=_accepts,
    shape=_shape,
    table=_table,
    ignored=("lm_head.",),  # of a tied model, which may hold a copy
    frame=_frame,
    build=partial(LanguageModel, switches=_SWITCHES),
    score_rule="yes less no at the last token",
    mapping=SIGMOID,
    words=language_model.WORDS,
    packable=language_model.packable,
    cost=language_model.DecoderCost,
    in_transformers=InTransformers(
        model="Qwen3ForCausalLM",
        config="Qwen3Config",
        tokenizer="Qwen2Tokenizer",
        special_tokens={"eos_token": "<|im_end|>", "pad_token": _PAD},
        hidden_states=language_model.hidden_states,
        restored="Qwen3ForSequenceClassification",
        prefix_space=False,
        last_token=True,
        settings=("rope_theta", "rope_scaling"),  # older names
    ),
    template=TEMPLATE,
    usual_length=8192,
    known=tuple(
        KnownModel(f"Qwen/Qwen3-Reranker-{size}B", "", millions, "many", "Apache-2.0", 40960)
        for size, millions in {"0.6": 600, "4": 4000, "8": 8000}.items()
    ),
)
