"""Checks of whole models on this machine's device: the embedded one, and one of a large model's size.

Bounds come from the dtype and the model's shape: see `bounds`.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.mapped import inputs_of
from mlx_rerank.device import operations
from mlx_rerank.device.arrays import to_numpy
from mlx_rerank.device.names import parse_device
from mlx_rerank.dtypes import NAMES, default_dtype, dtype_name, parse_dtype
from mlx_rerank.models.family import module_at
from mlx_rerank.models.layers import Model
from mlx_rerank.pairs.batching import pad
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.samples import sample_pairs
from mlx_rerank.proof import bounds
from mlx_rerank.proof.finding import Finding
from mlx_rerank.proof.verification import TOLERANCES
from mlx_rerank.scoring.budget import default_token_budget
from mlx_rerank.scoring.reranker import Reranker

_MODEL = "mini"
_LONGEST = 64  # tokens of a pair: a CPU takes seconds for a few in half precision
_LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "vocab_size": 1000}
_TOKENS = 128  # of a row of the largest batch
_TRAINED = 8  # tokens of a row in training
_LOSS_SCALE = 2.0**12  # as in training in float16


def dtypes(device: str) -> Iterator[Finding]:
    """Check logits in every dtype, with unpacked weights and as by default, against MLX's own float32 on the CPU."""
    pairs = sample_pairs()[::33]
    with operations.differentiable():
        right = _one_by_one(pairs, "cpu", "float32")
    what = f"logits of {len(pairs)} pairs, {{}}, against float32 on the CPU"
    for dtype in NAMES:
        yield Finding(what.format(dtype), _furthest(_one_by_one(pairs, device, dtype), right), _allowed(dtype))
    usual = Reranker(_MODEL, device=device, max_length=_LONGEST)
    found = usual.logits(pairs, show_progress=False).logits
    yield Finding(what.format("as by default"), _furthest(found, right), TOLERANCES[usual.dtype].logit)


def batches(device: str) -> Iterator[Finding]:
    """Check the logits of pairs in many batches, of two callers at once, against those of each pair alone."""
    pairs = sample_pairs()[::7]
    alone = Reranker(_MODEL, device=device, max_length=_LONGEST, deterministic=True)
    together = Reranker(_MODEL, device=device, max_length=_LONGEST, token_budget=128)
    right = alone.logits(pairs, show_progress=False).logits
    with ThreadPoolExecutor(2) as callers:
        calls = [callers.submit(together.logits, some, show_progress=False) for some in (pairs, pairs[::-1])]
    forwards, backwards = (call.result().logits for call in calls)
    furthest = max(_furthest(forwards, right), _furthest(backwards[::-1], right))
    what = f"logits of 2 x {len(pairs)} pairs in batches side by side, {alone.dtype}, against each alone"
    yield Finding(what, furthest, _allowed(alone.dtype))


def largest(device: str) -> Iterator[Finding]:
    """Check the largest batch that a large model is given by default, against each of its rows alone.

    A system may end what keeps its GPU for seconds. A CPU, which nobody takes away, has fewer layers to compute.
    """
    on, checkpoint = parse_device(device), Checkpoint.open(_MODEL)
    dtype = default_dtype(on)
    shape = replace(checkpoint.shape, **_LARGE, num_hidden_layers=24 if device == "gpu" else 2)
    rows = default_token_budget(checkpoint.family.cost(shape), on, dtype, _TOKENS) // _TOKENS
    ids = np.random.default_rng(0).integers(4, shape.vocab_size, (rows, _TOKENS), dtype=np.int32)
    with operations.on(on):
        mx.random.seed(0)
        model = checkpoint.family.build(replace(shape, num_hidden_layers=1))
        model.layers = model.layers * shape.num_hidden_layers
        model.set_dtype(dtype)
        alone = np.concatenate([to_numpy(model(mx.array(row[None]))) for row in ids])
        start = time.perf_counter()
        found = to_numpy(model(mx.array(ids)))
        seconds = time.perf_counter() - start
        allowed = bounds.logits(shape, _TOKENS, _last(model), dtype_name(dtype))
    what = f"logits of {rows} x {_TOKENS} tokens in {seconds:.1f} s, {dtype_name(dtype)}, against each alone"
    yield Finding(what, _furthest(found, alone), allowed)


def training(device: str) -> Iterator[Finding]:
    """Check the loss and its gradient in every dtype, with and without padding, against float32 on the CPU.

    The last layer has one query a row, for which MLX has had kernels without a derivative.
    """
    shape, right = Checkpoint.open(_MODEL).shape, _gradients("cpu", "float32")
    for dtype in NAMES:
        found = _gradients(device, dtype)
        for name in right:
            errors = [_distance(a, b) for a, b in zip(found[name], right[name], strict=True)]
            what = f"relative error of a training step's {name}, {dtype}, against float32 on the CPU"
            yield Finding(what, float(np.max(errors)), bounds.gradient(shape, _TRAINED, dtype))


def _one_by_one(pairs: list[tuple[str, str]], device: str, dtype: str) -> np.ndarray:
    """Return the logits of pairs, each computed alone."""
    checkpoint = Checkpoint.open(_MODEL)
    encoder = checkpoint.encoder()
    encoded = encoder.encode(pairs, Limits(_LONGEST))
    rows = [pad([encoded.sequences[i]], encoder.pad_token_id) for i in encoded.inverse]
    with operations.on(parse_device(device)):
        model = checkpoint.load(parse_dtype(dtype), keep_quantized=False)
        return np.concatenate([to_numpy(model(**inputs_of(row, checkpoint.shape, None))) for row in rows])


def _gradients(device: str, dtype: str) -> dict[str, list[np.ndarray]]:
    """Return the losses of two rows, without padding and with it, and their gradients as vectors."""
    checkpoint = Checkpoint.open(_MODEL)
    ids = np.random.default_rng(0).integers(4, 1000, (2, _TRAINED), dtype=np.int32)
    shown: np.ndarray = np.arange(_TRAINED) < np.array([[_TRAINED], [_TRAINED // 2]])
    found: dict[str, list[np.ndarray]] = {"loss": [], "gradient": []}
    with operations.on(parse_device(device)), operations.differentiable():
        model = checkpoint.load(parse_dtype(dtype), keep_quantized=False)
        module_at(model, checkpoint.family.words).freeze()

        def objective(model: Model, mask: mx.array | None) -> mx.array:
            logits = model(mx.array(ids), mask)
            return mx.logaddexp(0.0, logits[1] - logits[0]) * _LOSS_SCALE  # the first row is to be above the second

        for mask in (None, mx.array(shown)):
            loss, gradient = nn.value_and_grad(model, objective)(model, mask)
            parts: Any = tree_flatten(gradient)
            found["loss"].append(to_numpy(loss))
            found["gradient"].append(to_numpy(mx.concatenate([v.astype(mx.float32).reshape(-1) for _, v in parts])))
    return found


def _allowed(dtype: str) -> float:
    """Return how far apart two logits of the embedded model may be."""
    checkpoint = Checkpoint.open(_MODEL)
    with operations.on(mx.Device(mx.cpu)):
        out = _last(checkpoint.load(mx.float32, keep_quantized=False))
    return bounds.logits(checkpoint.shape, _LONGEST, out, dtype)


def _last(model: Model) -> np.ndarray:
    """Return the weight of a model's last projection."""
    projection: Any = model.head.out_proj
    return to_numpy(projection.weight.astype(mx.float32))


def _furthest(found: np.ndarray, right: np.ndarray) -> float:
    """Return the largest difference; NaN if there is one."""
    return float(np.abs(found.astype(np.float64) - right).max())


def _distance(found: np.ndarray, right: np.ndarray) -> float:
    """Return the norm of the difference as a share of the norm."""
    return float(np.linalg.norm(found.astype(np.float64) - right) / np.linalg.norm(right))
