"""ModernBERT: windows, rotary positions, gates, two poolings, and a byte-level BPE tokenizer."""

from typing import Any, ClassVar

import mlx.core as mx
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from families.checks import PAIRS, FamilyChecks, original_logits, seeded, write
from mlx_rerank import CrossEncoder, Reranker
from mlx_rerank.errors import CheckpointError
from mlx_rerank.models.encoders.modernbert import FAMILY

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
WORDS = ["panda", "bear", "the", "what", "is", "rain"]
OLD = {"global_attn_every_n_layers": 2, "global_rope_theta": 400.0, "local_rope_theta": 30.0}
NEW = {
    "layer_types": ["full_attention" if n % 2 == 0 else "sliding_attention" for n in range(7)],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 400.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
    },
}


def byte_level() -> Tokenizer:
    """Return a byte-level BPE tokenizer, which merges some words after a space."""
    pieces = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        made = "Ġ"
        for letter in word:
            if (made, letter) not in merges:
                merges.append((made, letter))
                pieces.append(made + letter)
            made += letter
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    ends = [("[CLS]", 1), ("[SEP]", 2)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", ends)
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


class TestModernBert(FamilyChecks):
    name = "modernbert"
    config: ClassVar[dict[str, Any]] = {
        "architectures": ["ModernBertForSequenceClassification"],
        "model_type": "modernbert",
        "vocab_size": 320,
        "hidden_size": 64,
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": 160,
        "local_attention": 8,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "norm_eps": 1e-5,
        "classifier_pooling": "cls",
        "pad_token_id": 3,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }
    real: ClassVar[dict[str, Any]] = {  # of Alibaba-NLP/gte-reranker-modernbert-base, of fewer pieces and layers
        "vocab_size": 2000,
        "hidden_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 12,
        "intermediate_size": 1152,
        "max_position_embeddings": 8192,
        "local_attention": 128,
    }
    refused: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({"architectures": ["ModernBertModel"]}, "an embedding model"),
        ({"architectures": ["ModernBertForMaskedLM"]}, "another head"),
        ({"id2label": {"0": "a", "1": "b"}}, "2 labels"),
        ({"hidden_activation": "silu"}, "silu"),
        ({"classifier_activation": "relu"}, "relu"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"norm_bias": True}, "norm_bias"),
        ({"classifier_bias": True}, "classifier_bias"),
        ({"sparse_prediction": True}, "sparse_prediction"),
        ({"classifier_pooling": "max"}, "max"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "yarn"),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}}, "linear"),
        ({"rope_parameters": {"rope_theta": 1.0}}, "rope_theta"),
    ]
    trims = False

    @staticmethod
    def tokenizer() -> Tokenizer:
        return byte_level()


class TestMeanOfModernBert(TestModernBert):
    config: ClassVar[dict[str, Any]] = TestModernBert.config | {"classifier_pooling": "mean", "local_attention": 9}


@pytest.mark.parametrize("change", [OLD, NEW], ids=["old keys", "new keys"])
def test_both_ways_to_state_layers_and_positions(tmp_path, change: dict[str, Any]) -> None:
    left = {name: value for name, value in TestModernBert.config.items() if name not in OLD}
    config = left | change
    assert FAMILY.shape(config) == FAMILY.shape(left | OLD)
    directory = write(tmp_path / "model", config, seeded(FAMILY, config), byte_level())
    found = Reranker(directory).logits(PAIRS[:4]).logits
    np.testing.assert_allclose(found, original_logits(directory, PAIRS[:4]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"global_attn_every_n_layers": None}, "layer_types"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers 0"),
        ({"layer_types": ["full_attention"]}, "each of 7"),
        ({"layer_types": ["chunked_attention"] * 7}, "chunked_attention"),
        ({"global_rope_theta": None}, "global_rope_theta"),
        ({"head_dim": 32}, "head_dim is 32"),
        ({"rope_parameters": [1]}, "rope_parameters"),
    ],
)
def test_a_config_that_says_nothing_of_layers_or_positions_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        FAMILY.shape(TestModernBert.config | change)


def test_cost_knows_gates_and_windows() -> None:
    shape = FAMILY.shape(TestModernBert.config)
    cost = FAMILY.cost(shape)
    assert cost.products == [(64, 192), (64, 64), (64, 192), (96, 64)]
    assert [cost.keys(layer, 160) for layer in range(7)] == [160, 12, 12, 160, 12, 12, 160]
    products = 2 * 7 * (64 * 192 + 64 * 64 + 64 * 192 + 96 * 64)
    assert cost.operations(160) == products + 2 * 2 * 64 * (3 * 160 + 4 * 12)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_cross_encoder_agrees_with_the_original(tmp_path, pooling: str) -> None:
    from sentence_transformers import CrossEncoder as Original

    config = TestModernBert.config | {"classifier_pooling": pooling}
    directory = write(tmp_path / "model", config, seeded(FAMILY, config), byte_level())
    found = CrossEncoder(str(directory), device="cpu", max_length=160).predict(PAIRS)
    expected = Original(str(directory), device="cpu", max_length=160).predict(PAIRS)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def test_a_last_layer_with_a_window_computes_the_first_token_alone(tmp_path) -> None:
    config = TestModernBert.config | {"num_hidden_layers": 6}
    directory = write(tmp_path / "model", config, seeded(FAMILY, config), byte_level())
    found = Reranker(directory).logits(PAIRS[:4]).logits
    np.testing.assert_allclose(found, original_logits(directory, PAIRS[:4]), atol=1e-4, rtol=0)
    assert mx.isfinite(mx.array(found)).all()
