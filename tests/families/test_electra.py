"""ELECTRA: a BERT with narrow embeddings, and GELU in its head."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np
import pytest
from tokenizers import Tokenizer

from families.checks import FamilyChecks, original_logits, seeded, write
from families.test_bert import SPLITS, wordpiece
from families.test_bert import TestBert as Base
from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.mapped import table_bytes
from mlx_rerank.errors import CheckpointError


class TestElectra(FamilyChecks):
    name = "electra"
    config: ClassVar[dict[str, Any]] = Base.config | {
        "architectures": ["ElectraForSequenceClassification"],
        "model_type": "electra",
        "embedding_size": 32,
    }
    real: ClassVar[dict[str, Any]] = {  # of google/electra-small-discriminator, over fewer pieces
        "vocab_size": 5000,
        "embedding_size": 128,
        "hidden_size": 256,
        "num_hidden_layers": 12,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "max_position_embeddings": 512,
    }
    refused: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({"architectures": ["ElectraModel"]}, "an embedding model"),
        ({"architectures": ["ElectraForPreTraining"]}, "another head"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "3 labels"),
        ({"hidden_act": "relu"}, "relu"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"type_vocab_size": 1}, "type_vocab_size"),
        ({"is_decoder": True}, "is_decoder"),
    ]
    trims = False

    @staticmethod
    def tokenizer() -> Tokenizer:
        return wordpiece()

    def test_only_the_place_of_the_split_tells_pairs_apart(self, directory: Path) -> None:
        logits = Reranker(directory).logits(SPLITS).logits
        assert abs(logits[0] - logits[1]) > 0.01
        np.testing.assert_allclose(logits, original_logits(directory, SPLITS), atol=1e-4, rtol=0)

    def test_embeddings_as_wide_as_the_layers_are_not_projected(self, family, tmp_path: Path) -> None:
        config = self.config | {"embedding_size": 64}
        tensors = seeded(family, config)
        assert not [name for name in tensors if "embeddings_project" in name]
        directory = write(tmp_path / "base", config, tensors, wordpiece())
        found, expected = Reranker(directory).logits(SPLITS).logits, original_logits(directory, SPLITS)
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)

    def test_the_size_of_the_table_is_that_of_its_narrow_rows(self, directory: Path) -> None:
        assert table_bytes(Checkpoint.open(directory), mx.float16, keep_quantized=False) == 80 * 32 * 2

    def test_the_width_of_the_embeddings_must_be_stated(self, family) -> None:
        config = {name: value for name, value in self.config.items() if name != "embedding_size"}
        with pytest.raises(CheckpointError, match="no 'embedding_size'"):
            family.shape(config)

    @pytest.mark.parametrize("kind", ["ElectraTokenizer", "ElectraTokenizerFast", "BertTokenizer"])
    def test_letters_stay_as_they_are_if_saved_so(self, directory: Path, tmp_path: Path, kind: str) -> None:
        from transformers import AutoTokenizer

        copy = shutil.copytree(directory, tmp_path / "copy")
        (copy / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, "do_lower_case": False}))
        checkpoint, original = Checkpoint.open(copy), AutoTokenizer.from_pretrained(copy)
        assert checkpoint.settings.other_tokenizer is None
        ids = checkpoint.encoder().tokens("The panda")[0]
        assert ids == original("The panda", add_special_tokens=False)["input_ids"]
        assert ids != checkpoint.encoder().tokens("the panda")[0]
