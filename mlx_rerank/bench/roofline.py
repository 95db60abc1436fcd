"""How near a run comes to the roofline of the machine it runs on, and what another chip's would be."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_rerank.bench.checkpoints import seeded, weights_name
from mlx_rerank.bench.contenders import OWN
from mlx_rerank.bench.flops import by_name, ceiling, operations
from mlx_rerank.bench.measures import Spread
from mlx_rerank.bench.report import show, spread
from mlx_rerank.bench.texts import Counter, Texts
from mlx_rerank.checkpoints.hub import resolve
from mlx_rerank.device.names import parse_device
from mlx_rerank.device.operations import on
from mlx_rerank.device.thread import device_thread
from mlx_rerank.dtypes import parse_dtype
from mlx_rerank.errors import InputError
from mlx_rerank.models.cost import Cost
from mlx_rerank.pairs.batching import Batching
from mlx_rerank.scoring.budget import default_token_budget
from mlx_rerank.scoring.reranker import Reranker

COPIED = 256 * 2**20  # bytes, more than any cache holds
_REPEATS = 5
_ROWS = 2048  # of the products whose rate is measured


@dataclass(frozen=True)
class Options:
    """What a run is told.

    Args:
        model: an embedded model's name, a hub id or a directory.
        shape: "base" or "large" for seeded weights instead, with the model's tokenizer.
        data: a directory in the BEIR layout; the package's samples if None.
        candidates: of one query, at the texts' own lengths.
        rounds: how often they are scored.
        dtype: as `Reranker`'s.
        device: as `Reranker`'s.
        max_length: as `Reranker`'s.
        seed: of the choice of texts and of random weights.
    """

    model: str = "mini"
    shape: str | None = None
    data: Path | None = None
    candidates: int = 100
    rounds: int = 5
    dtype: str | None = None
    device: str | None = None
    max_length: int | None = None
    seed: int = 0


def run(options: Options, chip: tuple[float | None, float | None] | None = None) -> dict[str, Any]:
    """Measure, and return what the work needs, what the machine gives, and what was reached, ready for JSON.

    Args:
        options: what to measure.
        chip: a chip to predict for: arithmetic in 1e12 and memory in 1e9 bytes a second; no prediction if None.

    Raises:
        InputError: an option cannot be used, or the texts are too few.
        CheckpointNotFoundError: the model's name leads nowhere.
        CheckpointError: its files cannot be used.
        DeviceError: this machine has no such device.
    """
    if chip is not None and not all(figure is not None and 0 < figure < float("inf") for figure in chip):
        raise InputError("a prediction needs --tflops and --bandwidth, both above 0: give both, or neither")
    texts = Texts.read(options.data, options.seed)
    pairs = texts.natural(options.candidates)
    with tempfile.TemporaryDirectory(prefix="mlx-rerank-bench-") as name:
        source = resolve(options.model)
        directory = seeded(options.shape, Path(name), source, options.seed) if options.shape else source
        counter = Counter(directory, options.max_length)
        reranker = Reranker(directory, dtype=options.dtype, device=options.device, max_length=counter.max_length)
        seconds = _seconds(lambda: reranker.logits(pairs, show_progress=False), options.rounds)
    dtype, cost = parse_dtype(reranker.dtype), counter.cost
    rates = device_thread().submit(measure_rates, cost, dtype, parse_device(options.device)).result()
    lengths = counter.lengths(pairs)
    per_second = rates["flops_per_second"], rates["bytes_per_second"]
    return {
        "model": weights_name(options.model, options.shape),
        "texts": texts.name,
        "settings": {"candidates": len(pairs), "dtype": reranker.dtype, "device": reranker.device},
        "tokens": int(lengths.sum()),
        "seconds": seconds,
        "measured": rates,
        "bounds": bounds(cost, lengths, reranker.token_budget, dtype.size, *per_second),
        "prediction": None if chip is None else _predicted(cost, lengths, dtype, chip),
    }


def bounds(
    cost: Cost,
    lengths: np.ndarray,
    token_budget: int,
    itemsize: int,
    flops_per_second: float,
    bytes_per_second: float,
) -> dict[str, dict[str, Any]]:
    """Return what mlx-rerank's batches of such pairs need, and the least seconds for it, with either last layer.

    Args:
        cost: of the model.
        lengths: tokens of each pair, int64 [N].
        token_budget: most padded tokens of a batch.
        itemsize: bytes of a weight and of an activation.
        flops_per_second: of matrix products.
        bytes_per_second: of memory.
    """
    batches = [(len(batch), int(lengths[batch].max())) for batch in Batching(token_budget).plan(lengths)]
    found = {}
    for name, first_token_only in (("all of every layer", False), ("first token of the last layer", True)):
        needed = operations(cost, batches, itemsize, first_token_only=first_token_only)
        alone = operations(cost, [(1, int(n)) for n in lengths], itemsize, first_token_only=first_token_only)
        found[name] = {
            "flops": sum(each.flops for each in needed),
            "flops_without_padding": sum(each.flops for each in alone),
            "bytes": sum(each.bytes for each in needed),
            "least_seconds": ceiling(needed, flops_per_second, bytes_per_second),
            "parts": [asdict(each) for each in by_name(needed)],
        }
    return found


def measure_rates(cost: Cost, dtype: mx.Dtype, device: mx.Device) -> dict[str, Any]:
    """Return what matrix products of the model's shapes and a copy reach; in the device thread."""
    rows, products = _ROWS, []
    with on(device):
        for inputs, outputs in cost.products:
            x, weight = (mx.random.normal((size, inputs)).astype(dtype) for size in (rows, outputs))
            mx.eval(x, weight)
            flops = 2 * rows * inputs * outputs
            took = _seconds(lambda x=x, weight=weight: mx.eval(x @ weight.T), _REPEATS)
            products.append({"rows": rows, "inputs": inputs, "outputs": outputs, "flops": flops, "seconds": took})
        seconds = _seconds(_copier(device), _REPEATS)
    spent = sum(statistics.median(each["seconds"]) for each in products)
    return {
        "products": products,
        "flops_per_second": sum(each["flops"] for each in products) / spent,
        "copy": {"bytes": 2 * COPIED, "seconds": seconds},
        "bytes_per_second": 2 * COPIED / statistics.median(seconds),
    }


def print_tables(facts: dict[str, Any]) -> None:
    """Print what was measured, what it is a share of, and the prediction, labelled as one."""
    pairs, rates = facts["settings"]["candidates"], facts["measured"]
    seconds = Spread.of(facts["seconds"])
    where = f"{facts['settings']['dtype']} on the {facts['settings']['device']}"
    figures = [
        ["matrix products of the model's shapes, TFLOP/s", f"{rates['flops_per_second'] / 1e12:.3f}"],
        ["memory, copying, GB/s", f"{rates['bytes_per_second'] / 1e9:.1f}"],
        [f"{OWN}: {pairs} pairs, {facts['tokens']} tokens, seconds", spread(seconds, 3)],
    ]
    show(f"measured, {where}", ["", "figure"], figures)
    rows = [
        [
            name,
            f"{bound['flops'] / 1e9:.1f}",
            f"{bound['bytes'] / 1e9:.2f}",
            f"{bound['least_seconds']:.3f}",
            f"{bound['least_seconds'] / seconds.median:.1%}",
            f"{bound['flops_without_padding'] / seconds.median / rates['flops_per_second']:.1%}",
        ]
        for name, bound in facts["bounds"].items()
    ]
    header = ["bound by those two rates", "GFLOP", "GB", "least seconds", "reached", "of the products' rate"]
    show("what the work needs, and the share of the bound that was reached", header, rows)
    told = facts["prediction"]
    if told:
        rows = [
            [name, f"{bound['least_seconds']:.4f}", f"{pairs / bound['least_seconds']:.0f}",
             f"{facts['tokens'] / bound['least_seconds']:.0f}"]
            for name, bound in told["bounds"].items()
        ]  # fmt: skip
        title = (
            f"PREDICTION, not measured: the most that {told['tflops']:g} TFLOP/s and {told['bandwidth']:g} GB/s allow"
        )
        show(title, ["", "seconds", "pairs/s", "tokens/s"], rows)


def _predicted(
    cost: Cost, lengths: np.ndarray, dtype: mx.Dtype, chip: tuple[float | None, float | None]
) -> dict[str, Any]:
    """Return the bounds of a chip, with the figures that were given for it."""
    tflops, bandwidth = chip
    assert tflops
    assert bandwidth
    budget = default_token_budget(cost, mx.Device(mx.gpu), dtype, int(lengths.max()))
    found = bounds(cost, lengths, budget, dtype.size, tflops * 1e12, bandwidth * 1e9)
    return {"what": "a bound, predicted and not measured", "tflops": tflops, "bandwidth": bandwidth, "bounds": found}


def _copier(device: mx.Device) -> Callable[[], Any]:
    """Return a function copying more than a cache holds: MLX's own addition on a GPU, numpy's copy on a CPU."""
    if device != mx.cpu:
        source = mx.zeros((COPIED // 4,), mx.float32)
        mx.eval(source)
        return lambda: mx.eval(source + 1)
    origin, target = np.ones(COPIED // 4, np.float32), np.empty(COPIED // 4, np.float32)
    return lambda: np.copyto(target, origin)


def _seconds(function: Callable[[], Any], repeats: int) -> list[float]:
    """Return how long each of several calls took, after one that does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times
