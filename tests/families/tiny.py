"""Tiny checkpoints of any family, with seeded weights, and what the original libraries make of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from mlx_rerank.models import family_of
from mlx_rerank.models.family import MODULES_KEY, Family

Tensors = dict[str, np.ndarray]


def seeded(family: Family, config: Mapping[str, Any], seed: int = 0, std: float = 0.15) -> Tensors:
    """Return float32 tensors of a checkpoint under its own names; those of normalisations are around one."""
    random, tensors = np.random.default_rng(seed), {}
    for name, shape in family.source_shapes(family.shape(config)).items():
        tensors[name] = random.standard_normal(shape, dtype=np.float32) * np.float32(std)
        if len(shape) == 1 and name.endswith("weight"):
            tensors[name] += 1
    return tensors


def write(directory: Path, config: Mapping[str, Any], tensors: Tensors, tokenizer: Tokenizer) -> Path:
    """Write a Hugging Face directory, whose tokenizer transformers reads from tokenizer.json as it is."""
    family = family_of(config)
    its, segments = family.in_transformers, family.frame(tokenizer, family.shape(config)).segments
    directory.mkdir(parents=True)
    own, modules = dict(config), config.get(MODULES_KEY, [])
    own.pop(MODULES_KEY, None)
    (directory / "config.json").write_text(json.dumps(own))
    if modules:
        _write_modules(directory, modules, tensors)
    names = ["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"]
    tokens = dict(its.special_tokens) | {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": names}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokens))
    tokenizer.save(str(directory / "tokenizer.json"))
    whole = {name: tensor for name, tensor in tensors.items() if "/" not in name}
    save_file(whole, directory / "model.safetensors", {"format": "pt"})
    return directory


def _write_modules(directory: Path, modules: list[dict[str, Any]], tensors: Tensors) -> None:
    """Write a head as sentence-transformers does: a list, and a folder for each module."""
    listed = [{"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}, *modules]
    names = [{"idx": i, "name": str(i), "path": one["path"], "type": one["type"]} for i, one in enumerate(listed)]
    (directory / "modules.json").write_text(json.dumps(names))
    (directory / "config_sentence_transformers.json").write_text(
        json.dumps({"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity"})
    )
    (directory / "sentence_bert_config.json").write_text('{"transformer_task": "feature-extraction"}')
    for module in modules:
        folder = directory / module["path"]
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({k: v for k, v in module.items() if k not in ("path", "type")}))
        own = {name.partition("/")[2]: t for name, t in tensors.items() if name.startswith(f"{module['path']}/")}
        if own:
            save_file(own, folder / "model.safetensors", {"format": "pt"})


def original_logits(directory: Path, pairs: list[tuple[str, str]]) -> np.ndarray:
    """Return what transformers makes of pairs that fit, each alone, tokenised by its own pair call; float32 [N]."""
    import torch
    import transformers
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if (directory / "modules.json").exists():
        from sentence_transformers import CrossEncoder

        return CrossEncoder(str(directory), device="cpu").predict(pairs, batch_size=1)
    saved = json.loads((directory / "config.json").read_text())
    its = family_of(saved).in_transformers
    kind, config = getattr(transformers, its.config), None
    if saved["model_type"] != kind.model_type:  # else transformers reads it by itself
        config = kind.from_dict(dict(its.translated(saved)))
    model = AutoModelForSequenceClassification.from_pretrained(directory, config=config).float().eval()
    tokenizer, found = AutoTokenizer.from_pretrained(directory), []
    for query, document in pairs:
        with torch.no_grad():
            found.append(model(**tokenizer([query], [document], return_tensors="pt")).logits.item())
    return np.array(found, dtype=np.float32)
