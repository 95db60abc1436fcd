"""From a Hugging Face checkpoint to an MLX directory: weights renamed, fused and cast, and a record of it."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_rerank.checkpoints.card import model_card
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.config import CONVERSION_KEY
from mlx_rerank.checkpoints.converted import converted, record
from mlx_rerank.checkpoints.files import TOKENIZER_FILE
from mlx_rerank.checkpoints.mapped import Inputs, inputs_of
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.checkpoints.writing import require_absent, write_model
from mlx_rerank.convert.measured_recipe import check_target, measured_recipe
from mlx_rerank.convert.quantize import check_recipe, describe_recipe, quantize, uniform_recipe
from mlx_rerank.convert.trim import trim
from mlx_rerank.dtypes import default_dtype, parse_dtype
from mlx_rerank.errors import CheckpointError, InputError
from mlx_rerank.models.family import module_at
from mlx_rerank.models.shape import Shape
from mlx_rerank.pairs.batching import Batching, pad
from mlx_rerank.pairs.encoder import PairEncoder
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.samples import pairs_from_corpus, sample_pairs
from mlx_rerank.pairs.tokenizing import parse_tokenizer

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
    template: str | None = None,
) -> Path:
    """Write an MLX directory that `Reranker` loads without transformers or torch.

    Args:
        hf_path: a hub id or a Hugging Face directory.
        mlx_path: the directory to write, which must not exist.
        dtype: of all weights that are not packed: "float16", "bfloat16" or "float32".
        revision: branch, tag or commit of a hub model.
        layers: how the encoder's matrices are packed; not at all if None.
        embeddings: how the word embeddings are packed; not at all if None.
        target_bits: pack each layer, and the embeddings, as far as the scores of sample pairs allow, to at most this
            many bits a weight on average, scales included. It replaces the two arguments above, and takes some minutes.
        trim_vocab: texts of the kind that will be read. The vocabulary keeps only the pieces that they use, and the
            single characters of their scripts; a text of such pieces scores as before. If None, it keeps all.
        name: what the model card calls the model; as the directory if None.
        template: the prompt that a language model was trained to rerank with, where its files do not say.

    Returns:
        The directory: model.safetensors, config.json, tokenizer.json, a README.md model card, and the source's
        licence files. It appears whole or not at all.

    Raises:
        CheckpointNotFoundError: the source's name leads nowhere.
        CheckpointError: its files cannot be used, or its vocabulary cannot be trimmed.
        UnsupportedModelError: it is not a single-label cross-encoder of a family that is run here.
        WeightsError: its tensors do not match its config.json.
        OutputError: mlx_path exists or cannot be written.
        InputError: the dtype or a packing is unknown, target_bits cannot be met, or trim_vocab is no list of texts.
        NonFiniteScoreError: packing was to be measured, and the model's own logits are not finite.
        MissingDependencyError: the source is a pytorch_model.bin and torch is not installed.
    """
    target = require_absent(mlx_path)
    if target_bits is not None and (layers, embeddings) != (None, None):
        raise InputError("target_bits chooses how layers and embeddings are packed: give it, or give these")
    mlx_dtype = parse_dtype(dtype)
    source = checkpoint = Checkpoint.open(hf_path, revision=revision, template=template)
    if checkpoint.converted:
        raise CheckpointError(f"{hf_path} was converted already: give the Hugging Face checkpoint it was made from")
    source.tensors()  # refuses a pytorch_model.bin that does not fit, before anything that takes long
    family, encoder = source.family, source.encoder()  # which refuses a tokenizer that does not fit
    recipe = uniform_recipe(family, source.shape, layers, embeddings)
    check_recipe(recipe, family, source.shape)
    if target_bits is not None:
        check_target(family, source.shape, target_bits)
    trimming = None
    if trim_vocab is not None:
        trimming = trim(source, trim_vocab)
        checkpoint = replace(source, raw=trimming.config, shape=family.shape(trimming.config))
        tokenizer = parse_tokenizer(trimming.files[TOKENIZER_FILE].encode(), "the trimmed vocabulary")
        encoder = PairEncoder(tokenizer, family.frame(tokenizer, checkpoint.shape), checkpoint.shape.vocab_size)
    select = trimming.select if trimming else None
    if target_bits is not None:
        fast = default_dtype(mx.default_device())
        model = converted(source, fast, shape=checkpoint.shape, select=select, evaluate=True)
        pairs = pairs_from_corpus(trimming.texts) if trimming else sample_pairs()[::3]
        batches = _calibration(encoder, pairs, checkpoint.shape)
        recipe = measured_recipe(model, family, checkpoint.shape, batches, target_bits, 8 * mlx_dtype.size)

    model = converted(source, mlx_dtype, shape=checkpoint.shape, select=select)
    config = record(checkpoint, encoder.frame, str(hf_path), dtype)
    if recipe:
        config[CONVERSION_KEY]["packing"] = describe_recipe(recipe, family.words)
        config = quantize(model, config, recipe, family.words)
    if trimming:
        sizes = _table_bytes(module_at(model, family.words), checkpoint.shape, source.shape)
        config[CONVERSION_KEY]["vocabulary"] = trimming.record | sizes
    texts = trimming.files if trimming else {}
    card, title = checkpoint.directory / "README.md", target.name if name is None else name
    texts |= {"README.md": model_card(config, checkpoint.shape.max_length, card, name=title)}
    write_model(target, model, config, source, texts)
    return target


def _table_bytes(table: nn.Module, shape: Shape, source: Shape) -> dict[str, int]:
    """Return the bytes of the word embeddings, and their bytes with the source's vocabulary."""
    parameters: Any = tree_flatten(table.parameters())
    kept = sum(value.nbytes for _, value in parameters)
    return {"bytes": kept, "source_bytes": kept // shape.vocab_size * source.vocab_size}


def _calibration(encoder: PairEncoder, pairs: list[tuple[str, str]], shape: Shape) -> list[Inputs]:
    """Return batches of the pairs with fewer than a hundred tokens or, if there are none, of all pairs, cut."""
    encoded = encoder.encode(pairs, Limits(min(_CALIBRATION_TOKENS, shape.max_length)))
    short = [row for row in encoded.sequences if row.tokens < _CALIBRATION_TOKENS] or encoded.sequences
    plan = Batching(32 * _CALIBRATION_TOKENS).plan(np.array([row.tokens for row in short]))
    return [inputs_of(pad([short[i] for i in batch], encoder.pad_token_id), shape, None) for batch in plan]
