"""DistilBERT: no segments, other names in its configuration, ReLU in its head."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from tokenizers import Tokenizer

from families.checks import PAIRS, FamilyChecks, original_logits, seeded, write
from families.test_bert import wordpiece
from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.errors import CheckpointError


class TestDistilBert(FamilyChecks):
    name = "distilbert"
    config: ClassVar[dict[str, Any]] = {
        "architectures": ["DistilBertForSequenceClassification"],
        "model_type": "distilbert",
        "vocab_size": 80,
        "dim": 64,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 128,
        "max_position_embeddings": 128,
        "activation": "gelu",
        "pad_token_id": 0,
        "sinusoidal_pos_embds": False,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }
    real: ClassVar[dict[str, Any]] = {  # of distilbert-base-german-cased, over fewer pieces, a third of its layers
        "vocab_size": 5000,
        "dim": 768,
        "n_layers": 2,
        "n_heads": 12,
        "hidden_dim": 3072,
        "max_position_embeddings": 512,
    }
    refused: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({"architectures": ["DistilBertModel"]}, "an embedding model"),
        ({"architectures": ["DistilBertForMaskedLM"]}, "another head"),
        ({"id2label": {"0": "a", "1": "b"}}, "2 labels"),
        ({"activation": "relu"}, "relu"),
    ]
    trims = False

    @staticmethod
    def tokenizer() -> Tokenizer:
        return wordpiece()

    def test_sines_are_read_as_they_are_stored(self, family, tmp_path: Path) -> None:
        config = self.config | {"sinusoidal_pos_embds": True}
        directory = write(tmp_path / "sines", config, seeded(family, config), wordpiece())
        found, expected = Reranker(directory).logits(PAIRS[:3]).logits, original_logits(directory, PAIRS[:3])
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("name", ["dim", "n_layers", "n_heads", "hidden_dim", "pad_token_id"])
    def test_every_number_must_be_stated(self, family, name: str) -> None:
        with pytest.raises(CheckpointError, match=f"no '{name}'"):
            family.shape({key: value for key, value in self.config.items() if key != name})

    @pytest.mark.parametrize("kind", ["DistilBertTokenizer", "DistilBertTokenizerFast", "BertTokenizer"])
    def test_letters_stay_as_they_are_if_saved_so(self, directory: Path, tmp_path: Path, kind: str) -> None:
        from transformers import AutoTokenizer

        copy = shutil.copytree(directory, tmp_path / "copy")
        (copy / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, "do_lower_case": False}))
        checkpoint, original = Checkpoint.open(copy), AutoTokenizer.from_pretrained(copy)
        assert checkpoint.settings.other_tokenizer is None
        ids = checkpoint.encoder().tokens("The panda")[0]
        assert ids == original("The panda", add_special_tokens=False)["input_ids"]
        assert ids != checkpoint.encoder().tokens("the panda")[0]
