"""DeBERTa-v2: attention to distances in buckets, no positions, and a Unigram tokenizer between [CLS] and [SEP]."""

from typing import Any, ClassVar

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from families.checks import FamilyChecks
from mlx_rerank.errors import CheckpointError
from mlx_rerank.models.encoders.deberta import FAMILY, bucket_of

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
WORDS = ["panda", "bear", "the", "what", "is", "rain", "eats", "where", "sea", "from"]


def unigram() -> Tokenizer:
    """Return a Unigram tokenizer of some words, and letters for all others; [MASK] is the last id, as in DeBERTa-v3."""
    pieces = [(token, 0.0) for token in SPECIAL] + [("\u2581" + word, -3.0) for word in WORDS]
    pieces += [(letter, -5.0) for letter in "\u2581abcdefghijklmnopqrstuvwxyz.,?!"] + [("[MASK]", 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.Strip()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    tokenizer.add_special_tokens([*SPECIAL, "[MASK]"])
    return tokenizer


class TestDeberta(FamilyChecks):
    name = "deberta-v2"
    config: ClassVar[dict[str, Any]] = {
        "architectures": ["DebertaV2ForSequenceClassification"],
        "model_type": "deberta-v2",
        "vocab_size": 80,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 128,
        "relative_attention": True,
        "position_buckets": 8,  # so that most distances of a row share buckets
        "max_relative_positions": -1,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-7,
        "hidden_act": "gelu",
        "pooler_hidden_act": "gelu",
        "pad_token_id": 0,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }
    real: ClassVar[dict[str, Any]] = {  # of mixedbread-ai/mxbai-rerank-xsmall-v1, over fewer pieces
        "vocab_size": 5000,
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "max_position_embeddings": 512,
        "position_buckets": 256,
    }
    refused: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({"architectures": ["DebertaV2Model"]}, "an embedding model"),
        ({"architectures": ["DebertaV2ForMaskedLM"]}, "another head"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "3 labels"),
        ({"id2label": {"0": "a", "1": "b"}}, "2 labels"),
        ({"conv_kernel_size": 3}, "conv_kernel_size 0; found 3"),
        ({"type_vocab_size": 2}, "type_vocab_size 0; found 2"),
        ({"relative_attention": False}, "relative_attention True; found False"),
        ({"position_biased_input": True}, "position_biased_input False; found True"),
        ({"pos_att_type": "p2c"}, r"found \['p2c'\]"),
        ({"share_att_key": False}, "share_att_key True; found False"),
        ({"norm_rel_ebd": "none"}, "norm_rel_ebd 'layer_norm'; found 'none'"),
        ({"position_buckets": -1}, "position_buckets"),
        ({"hidden_act": "relu"}, "relu"),
        ({"pooler_hidden_act": "tanh"}, "tanh"),
        ({"pooler_hidden_size": 32}, "pooler_hidden_size 64; found 32"),
        ({"embedding_size": 32}, "embedding_size 64; found 32"),
        ({"attention_head_size": 8}, "attention_head_size 16; found 8"),
    ]
    trims = True

    @staticmethod
    def tokenizer() -> Tokenizer:
        return unigram()

    @pytest.mark.parametrize("key", ["relative_attention", "position_biased_input", "share_att_key", "norm_rel_ebd"])
    def test_what_a_configuration_leaves_out_is_what_it_is_in_transformers(self, key: str) -> None:
        with pytest.raises(Exception, match=key):
            FAMILY.accepts({name: value for name, value in self.config.items() if name != key})

    def test_kinds_of_attention_may_be_one_string(self) -> None:
        assert FAMILY.accepts(self.config | {"pos_att_type": "p2c|c2p"})

    @pytest.mark.parametrize("buckets", [1, 256])
    def test_buckets_that_do_not_fit_the_distances_are_refused(self, buckets: int) -> None:
        with pytest.raises(CheckpointError, match=f"position_buckets {buckets}"):
            FAMILY.shape(self.config | {"position_buckets": buckets})


@pytest.mark.parametrize(("buckets", "most"), [(256, 512), (8, 128), (4, 64), (6, 20), (32, 24)])
def test_buckets_are_those_of_transformers(buckets: int, most: int) -> None:
    import torch
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distances = np.arange(-600, 601)
    rows = make_log_bucket_position(torch.from_numpy(distances), buckets, most).long() + buckets
    expected = rows.clamp(0, 2 * buckets - 1).numpy()
    np.testing.assert_array_equal(bucket_of(distances, buckets, most), expected)
