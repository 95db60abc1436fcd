"""XLM-RoBERTa: one segment, positions that count from the padding id, and a Unigram tokenizer."""

from typing import Any, ClassVar

from checkpoints import TINY, tiny_tokenizer
from tokenizers import Tokenizer, decoders

from families.checks import FamilyChecks


class TestXLMRoberta(FamilyChecks):
    name = "xlm-roberta"
    config: ClassVar[dict[str, Any]] = TINY | {"max_position_embeddings": 130}
    real: ClassVar[dict[str, Any]] = {  # of cross-encoder/mmarco-mMiniLMv2-L12-H384-v1, over fewer pieces
        "vocab_size": 5000,
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "max_position_embeddings": 514,
    }
    refused: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({"architectures": ["XLMRobertaModel"]}, "an embedding model"),
        ({"architectures": ["XLMRobertaForTokenClassification"]}, "another head"),
        ({"id2label": {"0": "a", "1": "b"}}, "2 labels"),
        ({"hidden_act": "relu"}, "relu"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"type_vocab_size": 2}, "type_vocab_size"),
    ]
    trims = True

    @staticmethod
    def tokenizer() -> Tokenizer:
        tokenizer = tiny_tokenizer()
        tokenizer.decoder = decoders.Metaspace()  # with which FlagEmbedding makes texts of ids again
        return tokenizer
