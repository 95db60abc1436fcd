"""GTE: rotary positions, a gated feed-forward, names of two makers, and XLM-RoBERTa's tokenizer."""

from typing import Any, ClassVar

from checkpoints import tiny_tokenizer
from tokenizers import Tokenizer

from families.checks import FamilyChecks

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
    ]
    trims = True

    @staticmethod
    def tokenizer() -> Tokenizer:
        return tiny_tokenizer()


class TestGte(TestNew):
    config: ClassVar[dict[str, Any]] = GTE
    refused: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({"architectures": ["GteModel"]}, "an embedding model"),
    ]
