"""XLM-RoBERTa as Jina saves it: no model type, renamed tensors, and query, key and value in one."""

import json
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TINY, tiny_tokenizer
from tokenizers import Tokenizer

from families.checks import PAIRS, FamilyChecks, original_logits, seeded, write
from mlx_rerank import Reranker
from mlx_rerank.errors import WeightsError
from mlx_rerank.models import family_of
from mlx_rerank.models.encoders import xlm_roberta
from mlx_rerank.proof.verify import verify

CODE = {
    "AutoConfig": "jinaai/code--configuration_xlm_roberta.XLMRobertaFlashConfig",
    "AutoModelForSequenceClassification": "jinaai/code--modeling_xlm_roberta.XLMRobertaForSequenceClassification",
}
NAMES = {
    ".emb_ln.": ".embeddings.LayerNorm.",
    "encoder.layers.": "encoder.layer.",
    "mixer.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "norm2": "output.LayerNorm",
}


def renamed(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return tensors by the names of transformers' class, the stacked ones apart."""
    found = {}
    for name, value in tensors.items():
        for theirs, its in NAMES.items():
            name = name.replace(theirs, its)
        if "mixer.Wqkv" in name:
            parts = zip(("query", "key", "value"), np.split(value, 3), strict=True)
            found |= {name.replace("mixer.Wqkv", f"attention.self.{part}"): one for part, one in parts}
        else:
            found[name] = value
    return found


def of_transformers(directory: Path, pairs: list[tuple[str, str]]) -> np.ndarray:
    """Return what transformers' class makes of pairs with the same tensors under its own names."""
    config = json.loads((directory / "config.json").read_text()) | {"model_type": "xlm-roberta"}
    del config["auto_map"]
    tensors = {name: np.array(value) for name, value in mx.load(str(directory / "model.safetensors")).items()}  # pyright: ignore
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    target = directory.parent / f"{directory.name}-renamed"
    return original_logits(target if target.exists() else write(target, config, renamed(tensors), tokenizer), pairs)


class TestXLMRobertaFlash(FamilyChecks):
    name = "xlm-roberta-flash"
    config: ClassVar[dict[str, Any]] = {key: value for key, value in TINY.items() if key != "model_type"} | {
        "auto_map": CODE,
        "max_position_embeddings": 130,
        "position_embedding_type": "absolute",
        "use_flash_attn": True,
        "lora_adaptations": None,
    }
    real: ClassVar[dict[str, Any]] = {  # of jinaai/jina-reranker-v2-base-multilingual, over fewer pieces and layers
        "vocab_size": 5000,
        "hidden_size": 768,
        "num_hidden_layers": 3,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 1026,
    }
    refused: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({"architectures": ["XLMRobertaModel"]}, "an embedding model"),
        ({"architectures": ["XLMRobertaForMaskedLM"]}, "another head"),
        ({"id2label": {"0": "a", "1": "b"}}, "2 labels"),
        ({"position_embedding_type": "rotary"}, "rotary"),
        ({"hidden_act": "gelu_fast"}, "gelu_fast"),
        ({"lora_adaptations": ["retrieval.query"]}, "retrieval.query"),
        ({"auto_map": {"AutoConfig": "configuration.OtherConfig"}}, "model_type None"),
    ]
    trims = True
    original = staticmethod(of_transformers)

    @staticmethod
    def tokenizer() -> Tokenizer:
        return tiny_tokenizer()

    def test_a_model_type_changes_nothing(self, family) -> None:
        assert family_of(self.config | {"model_type": "xlm-roberta"}) is family

    def test_tensors_under_the_names_of_transformers_are_not_taken_for_its_own(self, family, tmp_path: Path) -> None:
        tensors = renamed(seeded(family, self.config))
        assert tensors.keys() == xlm_roberta.FAMILY.source_shapes(family.shape(self.config)).keys()
        with pytest.raises(WeightsError, match="missing"):
            Reranker(write(tmp_path / "renamed", self.config, tensors, self.tokenizer()))

    def test_weights_of_torch_in_bfloat16_verify(self, family, tmp_path: Path) -> None:
        import torch

        directory = write(tmp_path / "torch", self.config, {}, self.tokenizer())
        (directory / "model.safetensors").unlink()
        tensors = seeded(family, self.config)
        state = {name: torch.from_numpy(value).bfloat16() for name, value in tensors.items()}
        torch.save(state, directory / "pytorch_model.bin")
        report = verify(directory, pairs=PAIRS[:3], dtype="float32")
        assert report.passed, report.problems
