"""From a Hugging Face checkpoint to an MLX directory: weights renamed, fused and cast, and a record of it."""

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

import mlx_rerank
from mlx_rerank import hub, weights
from mlx_rerank.batching import pad, plan_batches
from mlx_rerank.card import model_card
from mlx_rerank.checkpoint import Checkpoint, load_model, open_tensors
from mlx_rerank.config import CONVERSION_KEY, Quantization
from mlx_rerank.dtypes import default_dtype, parse_dtype
from mlx_rerank.errors import CheckpointError, InputError, OutputError, OutputExistsError
from mlx_rerank.models import REGISTRY
from mlx_rerank.pairs import Limits, PairEncoder
from mlx_rerank.quantize import Recipe, check_recipe, describe_recipe, quantize, uniform_recipe
from mlx_rerank.recipe import check_target, measured_recipe
from mlx_rerank.samples import sample_pairs

_CALIBRATION_TOKENS = 100  # of a pair; longer ones cost more than they tell
_DTYPE_KEYS = ("torch_dtype", "dtype")  # what transformers calls it, before and since version 5


def convert(
    hf_path: str | Path,
    mlx_path: str | Path = "mlx_model",
    *,
    dtype: str = "float16",
    revision: str | None = None,
    layers: Quantization | None = None,
    embeddings: Quantization | None = None,
    target_bits: float | None = None,
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
        name: what the model card calls the model; as the directory if None.

    Returns:
        The directory: model.safetensors, config.json, tokenizer.json, a README.md model card, and the source's
        licence files. It appears whole or not at all.

    Raises:
        CheckpointNotFoundError: the source's name leads nowhere.
        CheckpointError: its files cannot be used.
        UnsupportedModelError: it is not a single-label XLM-RoBERTa cross-encoder.
        WeightsError: its tensors do not match its config.json.
        OutputError: mlx_path exists or cannot be written.
        InputError: the dtype or a packing is unknown, or target_bits cannot be met.
        NonFiniteScoreError: packing was to be measured, and the model's own logits are not finite.
        MissingDependencyError: the source is a pytorch_model.bin and torch is not installed.
    """
    target = Path(mlx_path).expanduser()
    if target.exists() or target.is_symlink():
        raise OutputExistsError(f"{target} exists: remove it, or name another directory to write")
    if target_bits is not None and (layers or embeddings):
        raise InputError("target_bits chooses how layers and embeddings are packed: give it, or give these")
    mlx_dtype = parse_dtype(dtype)
    checkpoint = Checkpoint.open(hub.resolve(hf_path, revision=revision))
    if checkpoint.converted:
        raise CheckpointError(f"{hf_path} was converted already: give the Hugging Face checkpoint it was made from")
    encoder = PairEncoder.from_directory(checkpoint.directory, checkpoint.config)  # refuses one that does not fit
    recipe = uniform_recipe(checkpoint.config, layers, embeddings)
    check_recipe(recipe, checkpoint.config)
    if target_bits is not None:
        check_target(checkpoint.config, target_bits)
        recipe = _measured(checkpoint, encoder, target_bits, scale_bits=8 * mlx_dtype.size)

    model = REGISTRY[checkpoint.raw["model_type"]](checkpoint.config)
    weights.load_into(model, dict(weights.port(open_tensors(checkpoint.directory), checkpoint.config, mlx_dtype)))
    config = _record(checkpoint, str(hf_path), dtype)
    if recipe:
        config[CONVERSION_KEY]["packing"] = describe_recipe(recipe)
        config = quantize(model, config, recipe)
    with _appearing(target) as directory, _without_cache():
        weights.save(directory / weights.WEIGHTS_FILE, model)
        (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        _copy_texts(checkpoint.directory, directory)
        card = model_card(config, checkpoint.directory / "README.md", name=name or target.name)
        (directory / "README.md").write_text(card, encoding="utf-8")
    return target


def _measured(checkpoint: Checkpoint, encoder: PairEncoder, target_bits: float, scale_bits: int) -> Recipe:
    """Measure on every third sample pair of fewer than a hundred tokens, in the dtype that this device is fast in."""
    config = checkpoint.config
    encoded = encoder.encode(sample_pairs()[::3], Limits(min(_CALIBRATION_TOKENS, config.max_length)))
    short = [sequence for sequence in encoded.sequences if len(sequence) < _CALIBRATION_TOKENS]
    plan = plan_batches(np.array(list(map(len, short))), 32 * _CALIBRATION_TOKENS)
    padded = (pad([short[i] for i in batch], config.pad_token_id) for batch in plan)
    batches = [(mx.array(ids), None if mask is None else mx.array(mask)) for ids, mask in padded]
    model = load_model(checkpoint, default_dtype(mx.default_device()), keep_quantized=False)
    return measured_recipe(model, batches, target_bits, scale_bits)


def _record(checkpoint: Checkpoint, source: str, dtype: str) -> dict[str, Any]:
    """Return the config.json to write: the source's, with the dtype and what was done."""
    config = {key: value for key, value in checkpoint.raw.items() if key not in ("_name_or_path", *_DTYPE_KEYS)}
    return config | {
        "dtype": dtype,
        CONVERSION_KEY: {
            "version": mlx_rerank.__version__,
            "source": hub.public_name(source),
            "revision": hub.commit_of(checkpoint.directory),
        },
    }


def _copy_texts(source: Path, target: Path) -> None:
    """Copy the tokenizer and whatever states the licence."""
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    for pattern in ("LICENSE*", "NOTICE*"):
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, target / path.name)


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """Give a temporary directory near the target that takes its place at the end, and is removed on any error."""
    existing = next(parent for parent in target.absolute().parents if parent.exists())
    directory = existing / f".{target.name}-{uuid.uuid4().hex[:8]}"  # named first, so that a signal at any
    try:  # moment finds something to remove
        directory.mkdir()
        yield directory
        target.parent.mkdir(parents=True, exist_ok=True)
        directory.rename(target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}") from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _without_cache() -> Iterator[None]:
    """Give freed buffers back at once: the next tensor rarely has the same size."""
    limit = mx.set_cache_limit(0)
    try:
        yield
    finally:
        mx.set_cache_limit(limit)
