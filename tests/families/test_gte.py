"""GTE: rotary positions, a gated feed-forward, names of two makers, and XLM-RoBERTa's tokenizer."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from checkpoints import tiny_tokenizer
from tokenizers import Tokenizer, decoders

from families.checks import PAIRS, FamilyChecks, original_logits, seeded, write
from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.convert import convert
from mlx_rerank.errors import CheckpointError, WeightsError
from mlx_rerank.models.cost import Cost
from mlx_rerank.models.encoders.gte import FAMILY
from mlx_rerank.proof import restore
from mlx_rerank.proof.reference import ReferenceReranker

NEW = {  # as the models' own code reads it
    "architectures": ["NewForSequenceClassification"],
    "model_type": "new",
    "vocab_size": 128,  # more rows than the tokenizer has pieces
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "hidden_act": "gelu",
    "position_embedding_type": "rope",
    "rope_theta": 20000,
    "rope_scaling": {"factor": 8.0, "type": "ntk"},
    "pack_qkv": True,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
    "logn_attention_scale": False,
    "logn_attention_clip1": False,
    "pad_token_id": 1,
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
}
OWN = ("layer_norm_type", "position_embedding_type", "rope_theta", "rope_scaling", "pack_qkv", "unpad_inputs")
OWN = (*OWN, "use_memory_efficient_attention", "logn_attention_scale", "logn_attention_clip1")
GTE = {key: value for key, value in NEW.items() if key not in OWN} | {  # as transformers reads it
    "architectures": ["GteForSequenceClassification"],
    "model_type": "gte",
    "rope_parameters": {"rope_type": "linear", "rope_theta": 160000.0, "factor": 8 ** (2 / 16)},
}
REAL = {  # of Alibaba-NLP/gte-multilingual-reranker-base, with two of its layers and fewer pieces
    "vocab_size": 1000,
    "hidden_size": 768,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 8192,
}


class TestNew(FamilyChecks):
    name = "gte"
    config: ClassVar[dict[str, Any]] = NEW
    real: ClassVar[dict[str, Any]] = REAL
    refused: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({"architectures": ["NewModel"]}, "an embedding model"),
        ({"architectures": ["NewForTokenClassification"]}, "another head"),
        ({"id2label": {"0": "a", "1": "b"}}, "2 labels"),
        ({"hidden_act": "relu"}, "relu"),
        ({"position_embedding_type": "absolute"}, "absolute"),
        ({"layer_norm_type": "rms_norm"}, "rms_norm"),
        ({"type_vocab_size": 2}, "type_vocab_size"),
        ({"pack_qkv": False}, "pack_qkv"),
        ({"logn_attention_scale": True}, "logn_attention_scale"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.5}}, "mixed_b"),
    ]
    trims = True

    @staticmethod
    def tokenizer() -> Tokenizer:
        tokenizer = tiny_tokenizer()
        tokenizer.decoder = decoders.Metaspace()  # with which FlagEmbedding makes texts of ids again
        return tokenizer

    @staticmethod
    def readable(directory: Path) -> Path:
        """Write the same model with a config.json that transformers reads without the models' own code."""
        config = json.loads((directory / "config.json").read_text())
        if config["model_type"] == "gte":
            return directory
        twin = directory.with_name(f"{directory.name}-twin")
        if not twin.exists():
            shutil.copytree(directory, twin)
            own = FAMILY.in_transformers.translated(config)
            (twin / "config.json").write_text(json.dumps({**own, "architectures": GTE["architectures"]}))
        return twin


class TestGte(TestNew):
    config: ClassVar[dict[str, Any]] = GTE
    refused: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({"architectures": ["GteModel"]}, "an embedding model"),
        ({"type_vocab_size": 0}, "type_vocab_size"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "yarn"),
    ]

    @pytest.mark.parametrize("prefix", ["new.", ""])
    def test_names_of_tensors_may_begin_otherwise(self, family, directory: Path, tmp_path: Path, prefix: str) -> None:
        tensors = seeded(family, GTE)
        renamed = {prefix + name.removeprefix("new."): tensor for name, tensor in tensors.items()}
        if not prefix:
            renamed["gte.pooler.dense.bias"] = renamed.pop("pooler.dense.bias")  # one of each
        renamed = {name.replace("new.classifier", "classifier"): tensor for name, tensor in renamed.items()}
        copy = write(tmp_path / "copy", GTE, renamed, self.tokenizer())
        for embeddings in ("resident", "mapped"):
            found = Reranker(copy, embeddings=embeddings).logits(PAIRS).logits
            np.testing.assert_array_equal(found, Reranker(directory).logits(PAIRS).logits)
        renamed |= {"gte.embeddings.LayerNorm.bias": tensors["new.embeddings.LayerNorm.bias"]}
        with pytest.raises(WeightsError, match="names of the same weight"):
            Checkpoint.open(write(tmp_path / "twice", GTE, renamed, self.tokenizer()))

    def test_a_row_of_8192_tokens(self, family, tmp_path: Path) -> None:
        config = GTE | {"max_position_embeddings": 8192, "num_attention_heads": 1, "hidden_size": 16}
        directory = write(tmp_path / "long", config, seeded(family, config), self.tokenizer())
        reranker, pairs = Reranker(directory, max_length=8192), [("what is it?", "the panda is a bear " * 2000)]
        scored = reranker.logits(pairs)
        assert reranker.encoder.encode(pairs, reranker.limits).tokens[0] == 8192
        kept = [("what is it?", pairs[0][1][: scored.spans[0][1]])]
        np.testing.assert_allclose(scored.logits, original_logits(directory, kept), atol=1e-4, rtol=0)


def test_ntk_is_what_the_models_own_code_computes_and_its_linear_equivalent() -> None:
    size, theta, factor = 16, 20000.0, 8.0
    powers = np.arange(0, size, 2) / size
    own = 1 / (theta * factor) ** powers / factor ** (2 / size)  # NTKScalingRotaryEmbedding
    for config in (NEW, GTE):
        shape: Any = FAMILY.shape(config)
        np.testing.assert_allclose(shape.rope_theta**-powers / shape.rope_factor, own, rtol=1e-12)


@pytest.mark.parametrize("rope", [{}, {"type": "default"}, {"rope_type": "default", "factor": 3.0}])
def test_rotary_positions_without_scaling(rope: dict[str, Any]) -> None:
    shape: Any = FAMILY.shape(NEW | {"rope_scaling": rope})
    assert (shape.rope_theta, shape.rope_factor) == (20000.0, 1.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rope_theta": None}, "rope_theta of rotary positions must be a number from 1 to 1e9, found None"),
        ({"rope_scaling": {"type": "ntk"}}, "factor of rotary positions must be a number"),
        ({"rope_scaling": {"type": "ntk", "factor": 0.5}}, "factor of rotary positions must be a number"),
        ({"rope_scaling": "ntk"}, "describes rotary positions by 'ntk'"),
        ({"head_dim": 32}, "heads of size 32"),
        ({"num_attention_heads": 64}, "heads of size 1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        FAMILY.shape(NEW | change)


@pytest.mark.parametrize("token", ["<s>", "</s>", "<pad>"])
def test_a_tokenizer_without_a_special_token_is_refused(token: str) -> None:
    tokenizer = Tokenizer.from_str(tiny_tokenizer().to_str().replace(f'"{token}"', '"<x>"'))
    with pytest.raises(CheckpointError, match=token):
        FAMILY.frame(tokenizer, FAMILY.shape(NEW))


def test_a_gate_costs_as_much_as_what_it_opens() -> None:
    shape = FAMILY.shape(NEW)
    assert FAMILY.cost(shape).products == [(64, 192), (64, 64), (64, 192), (96, 64)]
    assert FAMILY.cost(shape).bytes(1, 4) - Cost(shape).bytes(1, 4) == 4 * 96


def test_the_reference_takes_no_weights_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "source", GTE, seeded(FAMILY, GTE), tiny_tokenizer())
    target = convert(source, tmp_path / "target", dtype="float32")
    restored = restore.state_dict(target)
    restored["new.pooler.dense.other"] = restored.pop("new.pooler.dense.bias")
    monkeypatch.setattr(restore, "state_dict", lambda _: restored)
    with pytest.raises(
        CheckpointError, match=r"missing_keys.*pooler\.dense\.bias.*unexpected_keys.*pooler\.dense\.oth"
    ):
        ReferenceReranker(target)
