"""Hugging Face directories that every contender can read: the same weights for all, or seeded ones of a known shape."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mlx_rerank.checkpoints.config import CONVERSION_KEY, is_converted, read_config
from mlx_rerank.checkpoints.files import WEIGHTS_FILE
from mlx_rerank.checkpoints.hub import EMBEDDED, public_name
from mlx_rerank.checkpoints.reading import read_bytes
from mlx_rerank.errors import InputError
from mlx_rerank.models import family_of
from mlx_rerank.pairs.tokenizing import parse_tokenizer
from mlx_rerank.proof import restore

_LARGE = {"num_hidden_layers": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
SHAPES = {  # of BAAI/bge-reranker-base, -large and -v2-m3
    "base": {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    "large": _LARGE,
    "v2-m3": _LARGE | {"max_position_embeddings": 8194},
}


def hugging_face(directory: Path, work: Path) -> Path:
    """Return a directory that transformers can read: the one given, or, of a converted one, a copy in float32.

    Args:
        directory: a checkpoint directory of either kind.
        work: where a copy is written.
    """
    raw = read_config(directory)
    if not is_converted(raw):
        return directory
    for key in (CONVERSION_KEY, "quantization", "quantization_config", "dtype"):
        raw.pop(key, None)
    return _write(work / "checkpoint", raw, restore.state_dict(directory), directory)


def seeded(shape: str, work: Path, tokenizer: Path = EMBEDDED["mini"], seed: int = 0) -> Path:
    """Write random weights of a shape, with the tokenizer and so the vocabulary of another model: for speed alone.

    Args:
        shape: one of SHAPES.
        work: where the directory is written.
        tokenizer: directory of a model to take the tokenizer from.
        seed: of the weights.

    Raises:
        InputError: there is no such shape.
    """
    if shape not in SHAPES:
        raise InputError(f"shape {shape!r} is not one of {', '.join(SHAPES)}")
    path = tokenizer / "tokenizer.json"
    vocabulary = parse_tokenizer(read_bytes(path), path).get_vocab_size()
    config = {key: value for key, value in read_config(EMBEDDED["mini"]).items() if key in _KEPT}
    config |= {"vocab_size": vocabulary, "max_position_embeddings": 514, "layer_norm_eps": 1e-5} | SHAPES[shape]
    return _write(work / "checkpoint", config, random_tensors(config, seed), tokenizer)


def weights_name(model: str, shape: str | None) -> str:
    """Return what the weights of a run are called where others read it."""
    return f"seeded random weights of shape {shape}" if shape else public_name(model)


_KEPT = (
    "architectures", "model_type", "type_vocab_size", "hidden_act", "pad_token_id", "bos_token_id", "eos_token_id",
    "id2label", "label2id",
)  # fmt: skip


def random_tensors(config: dict, seed: int) -> dict[str, np.ndarray]:
    """Return float32 tensors, spread so that nothing saturates and no activation is denormal."""
    random, family = np.random.default_rng(seed), family_of(config)
    tensors = {}
    for name, shape in family.source_shapes(family.shape(config)).items():
        spread = np.float32(1 / np.sqrt(shape[-1]) if len(shape) == 2 and "embeddings" not in name else 0.1)
        tensors[name] = random.standard_normal(shape, dtype=np.float32) * spread
        if len(shape) == 1 and name.endswith("weight"):  # of a normalisation
            tensors[name] += 1
    return tensors


def _write(target: Path, config: dict, tensors: dict[str, np.ndarray], tokenizer: Path) -> Path:
    """Write a Hugging Face directory."""
    target.mkdir()
    family = family_of(config)
    its, limit = family.in_transformers, family.shape(config).max_length
    tokens = dict(its.special_tokens) | {"tokenizer_class": its.tokenizer, "model_max_length": limit}
    (target / "config.json").write_text(json.dumps(config | {"dtype": "float32"}), encoding="utf-8")
    (target / "tokenizer_config.json").write_text(json.dumps(tokens), encoding="utf-8")
    shutil.copy(tokenizer / "tokenizer.json", target)
    save_file(tensors, target / WEIGHTS_FILE, {"format": "pt"})
    return target
