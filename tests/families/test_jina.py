"""jina-reranker-v2: XLM-RoBERTa's arithmetic over tensors with names of its makers' own."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from tokenizers import Tokenizer

from families.checks import PAIRS, FamilyChecks, original_logits, seeded, write
from families.test_xlm_roberta import TestXLMRoberta as Base
from families.tiny import Tensors
from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import open_tensors
from mlx_rerank.errors import WeightsError
from mlx_rerank.models import family_of
from mlx_rerank.models.family import Family

NAMES = {  # the makers', and transformers'
    "emb_ln": "embeddings.LayerNorm",
    "encoder.layers": "encoder.layer",
    "mixer.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "norm2": "output.LayerNorm",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
CODE = {
    "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
    "AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaForSequenceClassification",
}


def as_in_transformers(tensors: Tensors) -> Tensors:
    """Return a checkpoint's tensors as transformers' class names and cuts them."""
    renamed = {}
    for name, tensor in tensors.items():
        for theirs, ours in NAMES.items():
            name = re.sub(rf"(?<=\.){re.escape(theirs)}(?=\.)", ours, name)
        if "mixer.Wqkv" in name:
            parts = np.split(tensor, 3)
            for kind, part in zip(("query", "key", "value"), parts, strict=True):
                renamed[name.replace("mixer.Wqkv", f"attention.self.{kind}")] = np.ascontiguousarray(part)
        else:
            renamed[name] = tensor
    return renamed


def twin(directory: Path) -> Path:
    """Write the same model as transformers would save it, beside it."""
    target = directory.with_name(f"{directory.name}-twin")
    if not target.exists():
        config = json.loads((directory / "config.json").read_text()) | {"model_type": "xlm-roberta"}
        del config["auto_map"]
        tensors = {name: np.array(tensor) for name, tensor in open_tensors(directory).items()}
        write(target, config, as_in_transformers(tensors), Tokenizer.from_file(str(directory / "tokenizer.json")))
    return target


class TestJina(FamilyChecks):
    name = "jina-reranker-v2"
    config: ClassVar[dict[str, Any]] = {
        **{name: value for name, value in Base.config.items() if name != "model_type"},
        "auto_map": CODE,
        "position_embedding_type": "absolute",
        "use_flash_attn": True,
    }
    real: ClassVar[dict[str, Any]] = {  # of jinaai/jina-reranker-v2-base-multilingual, over fewer pieces, with 2 layers
        "vocab_size": 5000,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 1026,
    }
    refused: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({"architectures": ["XLMRobertaModel"]}, "an embedding model"),
        ({"architectures": ["XLMRobertaForMaskedLM"]}, "another head"),
        ({"id2label": {"0": "a", "1": "b"}}, "2 labels"),
        ({"hidden_act": "gelu_new"}, "gelu_new"),
        ({"position_embedding_type": "rotary"}, "rotary"),
        ({"type_vocab_size": 2}, "type_vocab_size"),
        ({"lora_adaptations": ["classification"]}, "lora_adaptations"),
        ({"auto_map": {"AutoConfig": "configuration_other.OtherConfig"}}, "model_type None"),
    ]
    trims = True

    @staticmethod
    def tokenizer() -> Tokenizer:
        return Base.tokenizer()

    @staticmethod
    def original(directory: Path, pairs: list[tuple[str, str]]) -> np.ndarray:
        return original_logits(twin(directory), pairs)

    @staticmethod
    def readable(directory: Path) -> Path:
        return twin(directory)

    def test_the_table_names_what_transformers_saves(self, family: Family, tmp_path: Path) -> None:
        from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

        state = XLMRobertaForSequenceClassification(XLMRobertaConfig.from_dict(dict(self.config))).state_dict()
        saved = {name: tuple(tensor.shape) for name, tensor in state.items() if not name.startswith(family.ignored)}
        tensors = {name: np.zeros(shape) for name, shape in family.source_shapes(family.shape(self.config)).items()}
        assert {name: tensor.shape for name, tensor in as_in_transformers(tensors).items()} == saved

    @pytest.mark.parametrize("change", [{"model_type": "xlm-roberta"}, {"use_flash_attn": False}, {"model_type": ""}])
    def test_it_is_recognised_by_the_code_that_it_names(self, family: Family, change: dict[str, Any]) -> None:
        assert family_of(self.config | change) is family
        elsewhere = {"AutoConfig": f"jinaai/xlm-roberta-flash-implementation--{CODE['AutoConfig']}"}
        assert family_of(self.config | {"auto_map": elsewhere}) is family

    def test_names_of_transformers_are_not_taken_for_the_makers(self, family: Family, tmp_path: Path) -> None:
        tensors = as_in_transformers(seeded(family, self.config))
        directory = write(tmp_path / "other", self.config, tensors, self.tokenizer())
        with pytest.raises(WeightsError, match=r"missing: roberta\.emb_ln"):
            Reranker(directory)

    def test_it_computes_what_an_xlm_roberta_does(self, directory: Path) -> None:
        found, expected = (
            Reranker(one, deterministic=True).logits(PAIRS).logits for one in (directory, twin(directory))
        )
        np.testing.assert_array_equal(found, expected)
