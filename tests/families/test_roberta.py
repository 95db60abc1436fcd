"""RoBERTa and DistilRoBERTa: byte-level BPE, and all else as in XLM-RoBERTa."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from families.checks import PAIRS, FamilyChecks, seeded, write
from families.test_xlm_roberta import TestXLMRoberta as Base
from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.convert import convert
from mlx_rerank.errors import CheckpointError
from mlx_rerank.proof.verify import verify

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def bytewise() -> Tokenizer:
    """Return a byte-level BPE tokenizer: 256 bytes, and a few merges."""
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("Ġ", "b"), ("a", "r"), ("r", "a")]
    pieces = [*SPECIAL[:4], *sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges), SPECIAL[4]]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.add_special_tokens([*SPECIAL[:4], AddedToken("<mask>", lstrip=True)])
    return tokenizer


class TestRoberta(FamilyChecks):
    name = "roberta"
    config: ClassVar[dict[str, Any]] = Base.config | {
        "architectures": ["RobertaForSequenceClassification"],
        "model_type": "roberta",
        "vocab_size": 320,
        "max_position_embeddings": 514,
    }
    real: ClassVar[
        dict[str, Any]
    ] = {  # of cross-encoder/stsb-distilroberta-base, over fewer pieces, a third of its layers
        "vocab_size": 5000,
        "hidden_size": 768,
        "num_hidden_layers": 2,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    }
    refused: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({"architectures": ["RobertaModel"]}, "an embedding model"),
        ({"architectures": ["RobertaForMaskedLM"]}, "another head"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "3 labels"),
        ({"hidden_act": "relu"}, "relu"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"type_vocab_size": 2}, "type_vocab_size"),
        ({"is_decoder": True}, "is_decoder"),
    ]
    trims = False

    @staticmethod
    def tokenizer() -> Tokenizer:
        return bytewise()

    def test_words_are_hidden_by_the_mask(self, directory: Path) -> None:
        encoder = Checkpoint.open(directory).encoder()
        assert encoder.frame.hidden == encoder.tokenizer.token_to_id("<mask>")

    def test_a_tokenizer_without_a_mask_is_refused(self, directory: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(directory, tmp_path / "copy")
        path = copy / "tokenizer.json"
        path.write_text(path.read_text().replace("<mask>", "<other>"))
        (copy / "tokenizer_config.json").unlink()
        with pytest.raises(CheckpointError, match="no <mask>"):
            Checkpoint.open(copy).encoder()

    @pytest.mark.parametrize("space", [None, False, True])
    def test_a_space_before_the_text_is_as_saved(self, directory: Path, tmp_path: Path, space: bool | None) -> None:
        from transformers import AutoTokenizer

        copy = shutil.copytree(directory, tmp_path / "copy")
        saved = {"tokenizer_class": "RobertaTokenizer"} | ({} if space is None else {"add_prefix_space": space})
        (copy / "tokenizer_config.json").write_text(json.dumps(saved))
        encoder, original = Checkpoint.open(copy).encoder(), AutoTokenizer.from_pretrained(copy)
        for text in ("the bear", " the bear", "naïve 東京", "<mask> the"):
            assert encoder.tokens(text)[0] == original(text, add_special_tokens=False)["input_ids"]
        assert (encoder.tokens("the")[0] == encoder.tokens(" the")[0]) is bool(space)
        target = convert(copy, tmp_path / "target", dtype="float32")
        np.testing.assert_array_equal(
            Reranker(target).logits(PAIRS[:3]).logits, Reranker(copy).logits(PAIRS[:3]).logits
        )
        assert verify(copy, pairs=PAIRS[:3], dtype="float32").passed

    def test_the_longest_row(self, directory: Path) -> None:
        reranker = Reranker(directory, max_length=512)
        encoded = reranker.encoder.encode([("what?", "z" * 600)], reranker.limits)
        assert encoded.tokens[0] == 512
        assert np.isfinite(reranker.logits([("what?", "z" * 600)]).logits).all()

    def test_a_tokenizer_is_made_of_older_files(self, family, tmp_path: Path) -> None:
        directory = write(tmp_path / "older", self.config, seeded(family, self.config), bytewise())
        expected = Reranker(directory).logits(PAIRS).logits
        model = json.loads((directory / "tokenizer.json").read_text())["model"]
        (directory / "tokenizer.json").unlink()
        (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}')
        (directory / "vocab.json").write_text(json.dumps(model["vocab"]))
        (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, model["merges"])))
        np.testing.assert_array_equal(Reranker(directory).logits(PAIRS).logits, expected)
