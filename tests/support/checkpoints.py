"""Checkpoints made in code: seeded random ones of any shape, and the embedded model as a Hugging Face directory."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mlx_rerank.checkpoints.hub import EMBEDDED
from mlx_rerank.models import family_of
from mlx_rerank.models.encoders.xlm_roberta import FAMILY
from mlx_rerank.models.shape import Shape
from mlx_rerank.pairs.encoder import PairEncoder
from mlx_rerank.proof import restore

TINY = {
    "architectures": ["XLMRobertaForSequenceClassification"],
    "model_type": "xlm-roberta",
    "vocab_size": 120,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 66,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "hidden_act": "gelu",
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
}
BASE = TINY | {  # the shape of BAAI/bge-reranker-base, over the embedded model's vocabulary
    "vocab_size": 64000,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 514,
}
_DRAWN = 1_000_003  # a prime: rows of a matrix begin elsewhere each time, so that no two are alike
TOKENIZER_CONFIG = {
    "tokenizer_class": "XLMRobertaTokenizer",
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "model_max_length": 512,
}


def shape_of(config: dict) -> Any:
    """Return the shape that a config.json states, of the class that its family has for it."""
    return family_of(config).shape(config)


def encoder_of(tokenizer: Tokenizer, shape: Shape) -> PairEncoder:
    """Return the encoder of an XLM-RoBERTa."""
    return PairEncoder(tokenizer, FAMILY.frame(tokenizer, shape), shape.vocab_size)


def random_tensors(config: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Return float32 tensors under their Hugging Face names, scaled so that scores differ and nothing saturates."""
    random = np.random.default_rng(seed)
    tensors = {}
    family = family_of(config)
    shapes = family.source_shapes(family.shape(config))
    modules = {name: re.sub(r"\d+", "", name.rpartition(".")[0]) for name in shapes}
    drawn = list(dict.fromkeys(modules.values()))  # module by module, through all layers: the seed's weights stay so
    for name in sorted(shapes, key=lambda name: drawn.index(modules[name])):
        shape = shapes[name]
        spread = 1.5 / np.sqrt(shape[-1]) if len(shape) == 2 and "embeddings" not in name else 0.3
        spread *= 4 if "word_embeddings" in name or "out_proj" in name else 1
        tensors[name] = _normal(random, shape)
        tensors[name] *= np.float32(spread)
        if len(shape) == 1 and name.endswith("weight"):  # of a normalisation
            tensors[name] += 1
    return tensors


def _normal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return normal numbers; the first million of a large array again and again, since to draw them takes seconds."""
    drawn = random.standard_normal(min(math.prod(shape), _DRAWN), dtype=np.float32)
    return np.resize(drawn, shape)


def embedded_tokenizer() -> Tokenizer:
    """Return the embedded model's tokenizer, for checkpoints that read texts as it does."""
    return Tokenizer.from_file(str(EMBEDDED["mini"] / "tokenizer.json"))


def tiny_tokenizer() -> Tokenizer:
    """Return a Unigram tokenizer of 120 pieces: letters, digits and a few words."""
    words = ["▁panda", "▁bear", "▁the", "▁what", "▁is", "ing", "er", "an"]
    characters = list("▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?!'-:;()/éüñß猫熊吃竹子")
    pieces = [*words, *characters][: 120 - 5]
    vocabulary = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    vocabulary += [(piece, -2.0 - 0.01 * i) for i, piece in enumerate(pieces)] + [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B:0 </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def write_checkpoint(
    directory: Path,
    config: dict | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    tokenizer: Tokenizer | None = None,
) -> Path:
    """Write a Hugging Face directory: the tiny shape with seeded weights, except for what is given."""
    config = TINY if config is None else config
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    kind = {} if tokenizer else {"tokenizer_class": "PreTrainedTokenizerFast"}  # the tiny one is not quite XLM-R's
    (directory / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG | kind))
    (tokenizer or tiny_tokenizer()).save(str(directory / "tokenizer.json"))
    shape = {key: value for key, value in config.items() if isinstance(value, int)}  # whatever else it claims to be
    save_file(
        random_tensors(TINY | shape) if tensors is None else tensors, directory / "model.safetensors", {"format": "pt"}
    )
    return directory


def write_mini(directory: Path) -> Path:
    """Write the embedded model, whose weights are trained ones, as a float32 Hugging Face directory."""
    directory.mkdir(parents=True)
    config = json.loads((EMBEDDED["mini"] / "config.json").read_text())
    for key in ("mlx_rerank", "quantization", "quantization_config", "dtype"):
        config.pop(key)
    (directory / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    (directory / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    shutil.copy(EMBEDDED["mini"] / "tokenizer.json", directory)
    save_file(restore.state_dict(EMBEDDED["mini"]), directory / "model.safetensors", {"format": "pt"})
    return directory
