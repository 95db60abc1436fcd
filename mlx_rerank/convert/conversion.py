"""From a Hugging Face checkpoint to an MLX directory: weights renamed, fused and cast, and a record of it."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from tokenizers import Tokenizer

from mlx_rerank.checkpoints import hub
from mlx_rerank.checkpoints.card import model_card
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.config import CONVERSION_KEY, ModelConfig
from mlx_rerank.checkpoints.converted import converted, record
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.checkpoints.writing import require_absent, write_model
from mlx_rerank.convert.measured_recipe import check_target, measured_recipe
from mlx_rerank.convert.quantize import Recipe, check_recipe, describe_recipe, quantize, uniform_recipe
from mlx_rerank.convert.trim import trim
from mlx_rerank.dtypes import default_dtype, parse_dtype
from mlx_rerank.errors import CheckpointError, InputError
from mlx_rerank.models.xlm_roberta import CrossEncoder
from mlx_rerank.pairs.batching import pad, plan_batches
from mlx_rerank.pairs.encoder import PairEncoder
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.samples import pairs_from_corpus, sample_pairs

_CALIBRATION_TOKENS = 100  # of a pair; longer ones cost more than they tell


def convert(
    hf_path: str | Path,
    mlx_path: str | Path = "mlx_model",
    *,
    dtype: str = "float16",
    revision: str | None = None,
    layers: Quantization | None = None,
    embeddings: Quantization | None = None,
    target_bits: float | None = None,
    trim_vocab: Iterable[str] | None = None,
    name: str | None = None,
) -> Path:
    """Write an MLX directory that `Reranker` loads without transformers or torch.

    Args:
        hf_path: a hub id or a Hugging Face directory.
        mlx_path: the directory to write, which must not exist.
        dtype: of all weights that are not packed: "float16", "bfloat16" or "float32".
        revision: branch, tag or commit of a hub model.
        layers: how the encoder's matrices are packed; not at all if None.
        embeddings: how the word embeddings are packed; not at all if None.
        target_bits: pack each layer, and the embeddings, as far as the scores of sample pairs bear it, to at most this
            many bits a weight on average, scales included. It takes the place of the two above, and some minutes.
        trim_vocab: texts of the kind that will be read. Of the vocabulary only the pieces that they use are kept, and
            the single characters of their scripts; a text of such pieces scores as before. All is kept if None.
        name: what the model card calls the model; as the directory if None.

    Returns:
        The directory: model.safetensors, config.json, tokenizer.json, a README.md model card, and the source's
        licence files. It appears whole or not at all.

    Raises:
        CheckpointNotFoundError: the source's name leads nowhere.
        CheckpointError: its files cannot be used, or its vocabulary cannot be trimmed.
        UnsupportedModelError: it is not a single-label XLM-RoBERTa cross-encoder.
        WeightsError: its tensors do not match its config.json.
        OutputError: mlx_path exists or cannot be written.
        InputError: the dtype or a packing is unknown, target_bits cannot be met, or trim_vocab is no list of texts.
        NonFiniteScoreError: packing was to be measured, and the model's own logits are not finite.
        MissingDependencyError: the source is a pytorch_model.bin and torch is not installed.
    """
    target = require_absent(mlx_path)
    if target_bits is not None and (layers or embeddings):
        raise InputError("target_bits chooses how layers and embeddings are packed: give it, or give these")
    mlx_dtype = parse_dtype(dtype)
    source = checkpoint = Checkpoint.open(hub.resolve(hf_path, revision=revision))
    if checkpoint.converted:
        raise CheckpointError(f"{hf_path} was converted already: give the Hugging Face checkpoint it was made from")
    encoder = PairEncoder.from_directory(checkpoint.directory, checkpoint.config)  # refuses one that does not fit
    recipe = uniform_recipe(checkpoint.config, layers, embeddings)
    check_recipe(recipe, checkpoint.config)
    if target_bits is not None:
        check_target(checkpoint.config, target_bits)
    trimming = None
    if trim_vocab is not None:
        trimming = trim(source.directory, source.raw, trim_vocab)
        checkpoint = replace(source, raw=trimming.config, config=ModelConfig.from_dict(trimming.config))
        encoder = PairEncoder(Tokenizer.from_str(trimming.tokenizer), checkpoint.config)
    select = trimming.select if trimming else None
    if target_bits is not None:
        fast = default_dtype(mx.default_device())
        model = converted(source, fast, config=checkpoint.config, select=select, evaluate=True)
        pairs = pairs_from_corpus(trimming.texts) if trimming else sample_pairs()[::3]
        recipe = _measured(model, encoder, pairs, target_bits, scale_bits=8 * mlx_dtype.size)

    model = converted(source, mlx_dtype, config=checkpoint.config, select=select)
    config = record(checkpoint, str(hf_path), dtype)
    if recipe:
        config[CONVERSION_KEY]["packing"] = describe_recipe(recipe)
        config = quantize(model, config, recipe)
    if trimming:
        config[CONVERSION_KEY]["vocabulary"] = trimming.record | _table_bytes(model, source)
    texts = {"tokenizer.json": trimming.tokenizer} if trimming else {}
    texts["README.md"] = model_card(config, checkpoint.directory / "README.md", name=name or target.name)
    write_model(target, model, config, checkpoint.directory, texts)
    return target


def _table_bytes(model: CrossEncoder, source: Checkpoint) -> dict[str, int]:
    """Return what the word embeddings take, and what they would take with the source's vocabulary."""
    parameters: Any = tree_flatten(model.embeddings.word_embeddings.parameters())
    kept = sum(value.nbytes for _, value in parameters)
    return {"bytes": kept, "source_bytes": kept // model.config.vocab_size * source.config.vocab_size}


def _measured(
    model: CrossEncoder, encoder: PairEncoder, pairs: list[tuple[str, str]], target_bits: float, scale_bits: int
) -> Recipe:
    """Measure on those pairs that have fewer than a hundred tokens; on all of them, cut, where none has."""
    config = model.config
    encoded = encoder.encode(pairs, Limits(min(_CALIBRATION_TOKENS, config.max_length)))
    short = [sequence for sequence in encoded.sequences if len(sequence) < _CALIBRATION_TOKENS] or encoded.sequences
    plan = plan_batches(np.array(list(map(len, short))), 32 * _CALIBRATION_TOKENS)
    padded = (pad([short[i] for i in batch], config.pad_token_id) for batch in plan)
    batches = [(mx.array(ids), None if mask is None else mx.array(mask)) for ids, mask in padded]
    return measured_recipe(model, batches, target_bits, scale_bits)
