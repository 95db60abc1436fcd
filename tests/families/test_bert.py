"""BERT: two segments, a pooler, WordPiece, and scores that its makers leave as logits."""

import shutil
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from families.checks import PAIRS, FamilyChecks, original_logits, seeded, write
from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.errors import CheckpointError, InputError, UnsupportedModelError
from mlx_rerank.models.encoders.bert import FAMILY

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["panda", "bear", "the", "what", "is", "rain", "eats", "where", "sea", "from"]
# Pairs with the same ids, which only the place of the split tells apart: what separates texts may be written in them.
SPLITS = [("panda [SEP] bear", "the rain"), ("panda", "bear [SEP] the rain")]


def wordpiece() -> Tokenizer:
    """Return a lower-casing WordPiece tokenizer of some words, and letters for all others."""
    pieces = [*SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS), *".,?!"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.decoder = decoders.WordPiece()  # with which FlagEmbedding makes texts of ids again
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


class TestBert(FamilyChecks):
    name = "bert"
    config: ClassVar[dict[str, Any]] = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "vocab_size": 80,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 128,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "pad_token_id": 0,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }
    real: ClassVar[dict[str, Any]] = {  # of cross-encoder/ms-marco-MiniLM-L6-v2
        "vocab_size": 30522,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "max_position_embeddings": 512,
    }
    refused: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({"architectures": ["BertModel"]}, "an embedding model"),
        ({"architectures": ["BertForMaskedLM"]}, "another head"),
        ({"id2label": {"0": "a", "1": "b"}}, "2 labels"),
        ({"position_embedding_type": "alibi"}, "alibi"),  # jina-reranker-v1
        ({"feed_forward_type": "geglu"}, "geglu"),
        ({"hidden_act": "relu"}, "relu"),
        ({"type_vocab_size": 1}, "type_vocab_size"),
        ({"is_decoder": True}, "is_decoder"),
    ]
    trims = False

    @staticmethod
    def tokenizer() -> Tokenizer:
        return wordpiece()

    def test_only_the_place_of_the_split_tells_pairs_apart(self, directory: Path) -> None:
        reranker = Reranker(directory)
        encoded = reranker.encoder.encode(SPLITS, reranker.limits)
        one, other = (encoded.sequences[place] for place in encoded.inverse)
        assert one.ids.tolist() == other.ids.tolist()
        assert one.second != other.second
        logits = reranker.logits(SPLITS).logits
        assert abs(logits[0] - logits[1]) > 0.01
        np.testing.assert_allclose(logits, original_logits(directory, SPLITS), atol=1e-4, rtol=0)

    def test_pairs_of_the_same_ids_do_not_share_a_place_in_a_score_cache(self, directory: Path, tmp_path: Path) -> None:
        first = Reranker(directory, score_cache=tmp_path / "scores")
        expected = Reranker(directory).logits(SPLITS).logits
        np.testing.assert_allclose(first.logits(SPLITS).logits, expected, atol=1e-5, rtol=0)
        np.testing.assert_array_equal(first.logits(SPLITS).logits, first.logits(SPLITS).logits)

    def test_a_batch_without_segments_is_refused(self, directory: Path) -> None:
        model = Checkpoint.open(directory).load(mx.float32, keep_quantized=False)
        with pytest.raises(InputError, match="segments"):
            model(mx.array([[2, 5, 3, 6, 3]]))

    def test_a_tokenizer_without_segments_is_refused(self, directory: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(directory, tmp_path / "copy")
        tokenizer = self.tokenizer()
        ends = [("[CLS]", 2), ("[SEP]", 3)]
        tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:0 [SEP]:0", ends)
        tokenizer.save(str(copy / "tokenizer.json"))
        with pytest.raises(UnsupportedModelError, match="the document being the second segment"):
            Reranker(copy)
        self.tokenizer().save(str(copy / "tokenizer.json"))
        (copy / "tokenizer_config.json").write_text('{"model_input_names": ["input_ids", "attention_mask"]}')
        with pytest.raises(UnsupportedModelError, match=r"model_input_names \['input_ids'.*without token_type_ids"):
            Reranker(copy)

    def test_as_many_tokens_as_the_model_has_positions(self, directory: Path) -> None:
        reranker = Reranker(directory, max_length=128)
        scored = reranker.logits([("what is it?", "panda " * 400)])
        assert reranker.encoder.encode([("what is it?", "panda " * 400)], reranker.limits).tokens[0] == 128
        assert scored.truncated_tokens[0] > 200
        kept = "panda " * (400 - int(scored.truncated_tokens[0]))
        expected = original_logits(directory, [("what is it?", kept)])
        np.testing.assert_allclose(scored.logits, expected, atol=1e-4, rtol=0)

    def test_a_constant_row_survives_the_small_epsilon_in_half_precision(self, family, tmp_path: Path) -> None:
        tensors = seeded(family, self.config)
        for name in tensors:
            if name.startswith("bert.embeddings.") and not name.endswith(("LayerNorm.weight", "LayerNorm.bias")):
                tensors[name][:] = 0.5  # every row has a variance of 0, and 1e-12 is less than float16 can hold
        directory = write(tmp_path / "constant", self.config, tensors, wordpiece())
        logits = Reranker(directory, dtype="float16").logits(PAIRS[:2]).logits
        assert np.isfinite(logits).all()

    @pytest.mark.parametrize("token", ["[CLS]", "[SEP]", "[MASK]"])
    def test_a_tokenizer_without_a_special_token_is_refused(self, family, tmp_path: Path, token: str) -> None:
        directory = write(tmp_path / "other", self.config, seeded(family, self.config), wordpiece())
        text = (directory / "tokenizer.json").read_text().replace(token, "[X]")
        (directory / "tokenizer.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"needs all three"):
            Checkpoint.open(directory).encoder()


def test_the_family_is_called_what_people_call_it() -> None:
    assert (FAMILY.title, FAMILY.example) == ("BERT", "cross-encoder/ms-marco-MiniLM-L6-v2")
