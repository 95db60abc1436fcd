"""Speed beside other libraries: throughput, latency and cold start, on the same weights and texts, in one run."""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_rerank.bench.checkpoints import hugging_face, seeded, weights_name
from mlx_rerank.bench.contenders import OWN, REFERENCE, Contender, choose, roster
from mlx_rerank.bench.measures import Spread, quantile, ratios
from mlx_rerank.bench.race import COLD, Race, Results
from mlx_rerank.bench.report import show, spread
from mlx_rerank.bench.texts import Counter, Texts, Workload
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.digest import sha256
from mlx_rerank.checkpoints.hub import resolve
from mlx_rerank.device.names import parse_device
from mlx_rerank.errors import InputError

logger = logging.getLogger("mlx_rerank")

LATENCY_CALLS = {10: 5, 30: 3}  # calls a round with that many candidates; one with any other number


@dataclass(frozen=True)
class Options:
    """What a run is told.

    Args:
        model: an embedded model's name, a hub id or a directory.
        shape: "base" or "large" for seeded weights instead, with the model's tokenizer.
        data: a directory in the BEIR layout; the package's samples if None.
        rounds: turns of every contender.
        threads: of each process.
        candidates: of one query, a workload each, at the texts' own lengths.
        lengths: in tokens, a workload each.
        tokens: of each workload of one length, about.
        scaling: candidates a call, at which mlx-rerank's time per pair is compared.
        contenders: names of those that take part; everybody if empty.
        device: "gpu" or "cpu"; MLX's default one if None.
        max_length: most tokens of a pair; 512, or the model's limit, if None.
        seed: of the choice of texts and of random weights.
    """

    model: str = "mini"
    shape: str | None = None
    data: Path | None = None
    rounds: int = 3
    threads: int = 1
    candidates: Sequence[int] = (10, 30, 100)
    lengths: Sequence[int] = (32, 128, 512)
    tokens: int = 4096
    scaling: Sequence[int] = (100, 1000)
    contenders: Sequence[str] = ()
    device: str | None = None
    max_length: int | None = None
    seed: int = 0


def run(options: Options) -> dict[str, Any]:
    """Measure, and return raw times, their summary and what they are of, ready for JSON.

    Raises:
        InputError: an option cannot be used, or the texts are too few.
        CheckpointNotFoundError: the model's name leads nowhere.
        CheckpointError: its files cannot be used.
        DeviceError: this machine has no such device.
    """
    device = "gpu" if parse_device(options.device).type.name == "gpu" else "cpu"
    texts = Texts.read(options.data, options.seed)
    with tempfile.TemporaryDirectory(prefix="mlx-rerank-bench-") as name:
        work, source = Path(name), resolve(options.model)
        directory = seeded(options.shape, work, source, options.seed) if options.shape else hugging_face(source, work)
        fingerprint = Checkpoint.open(directory if options.shape else source).fingerprint(sha256)
        counter = Counter(directory, options.max_length)
        everybody = roster(str(directory), counter.max_length, device, str(work / "model.onnx"))
        contenders = choose(everybody, options.contenders)
        shared = natural_workloads(texts, counter, options.candidates)
        shared += fixed_workloads(texts, counter, options.lengths, options.tokens)
        own = scaling_workloads(texts, counter, options.scaling)
        results = Race(contenders, options.threads).run(shared, own, options.rounds)
    return {
        "model": weights_name(options.model, options.shape),
        "fingerprint": fingerprint,
        "texts": texts.name,
        "settings": {**_settings(options), "device": device, "max_length": counter.max_length},
        "contenders": [_status(contender, results) for contender in contenders],
        "workloads": [_size(workload) for workload in [*shared, *own]],
        **summary(results, [contender.name for contender in contenders], shared, own),
        "rounds": results.rounds,
    }


def natural_workloads(texts: Texts, counter: Counter, candidates: Sequence[int]) -> list[Workload]:
    """Return calls with so many candidates each, at the texts' own lengths."""
    most = max((count * LATENCY_CALLS.get(count, 1) for count in candidates), default=0)
    pairs = texts.natural(most) if most else []
    found = []
    for count in candidates:
        calls = [pairs[i * count : (i + 1) * count] for i in range(LATENCY_CALLS.get(count, 1))]
        found.append(counter.workload(f"{count} candidates", calls))
    return found


def fixed_workloads(texts: Texts, counter: Counter, lengths: Sequence[int], tokens: int) -> list[Workload]:
    """Return a call for each length in tokens, of as many pairs as make about so many tokens."""
    found = []
    for length in lengths:
        if length > counter.max_length:
            logger.warning("no workload of %d tokens a pair: pairs are cut to %d", length, counter.max_length)
            continue
        count, special = max(1, tokens // length), counter.special_tokens
        pairs = texts.cut(counter.tokenizer, length, count, special_tokens=special)
        found.append(counter.workload(f"{length} tokens", [pairs]))
    return found


def scaling_workloads(texts: Texts, counter: Counter, sizes: Sequence[int]) -> list[Workload]:
    """Return the same pairs in calls of each size; a size beyond a thousand has one call with more."""
    least = min(1000, max(sizes, default=0))
    pairs = texts.natural(max(sizes, default=0)) if sizes else []
    found = []
    for size in sizes:
        kept = pairs[: max(least, size) // size * size]
        calls = [kept[start : start + size] for start in range(0, len(kept), size)]
        found.append(counter.workload(f"{size} per call", calls))
    return found


def summary(
    results: Results, names: Sequence[str], shared: Sequence[Workload], own: Sequence[Workload]
) -> dict[str, Any]:
    """Return the figures that tables show: shared workloads and cold starts by contender, and time per pair by size."""
    cold = {name: [call for calls in results.seconds(name, COLD) for call in calls] for name in names}
    scaling = {workload.name: [sum(calls) for calls in results.seconds(OWN, workload.name)] for workload in own}
    return {
        "summary": {
            workload.name: {name: found for name in names if (found := summarise(results, workload, name))}
            for workload in shared
        },
        "cold_start_seconds": {name: asdict(Spread.of(values)) for name, values in cold.items() if values},
        "seconds_per_pair": {
            workload.name: asdict(Spread.of([total / workload.pairs for total in scaling[workload.name]]))
            for workload in own
            if scaling[workload.name]
        },
    }


def summarise(results: Results, workload: Workload, name: str) -> dict[str, Any] | None:
    """Return a contender's figures for a workload; None where it has no finished turn."""
    rounds = results.seconds(name, workload.name)
    if not rounds:
        return None
    totals, calls = [sum(calls) for calls in rounds], [seconds for calls in rounds for seconds in calls]
    base = [sum(calls) for calls in results.seconds(OWN, workload.name)][: len(totals)]
    return {
        "pairs_per_second": asdict(Spread.of([workload.pairs / total for total in totals])),
        "tokens_per_second": asdict(Spread.of([workload.tokens / total for total in totals])),
        "p50_seconds": quantile(calls, 0.5),
        "p95_seconds": quantile(calls, 0.95),
        "calls": len(calls),
        "times_mlx_rerank": asdict(ratios(totals[: len(base)], base)) if base else None,
        "max_delta_logit": max_delta(results, workload.name, name),
    }


def max_delta(results: Results, workload: str, name: str) -> float | None:
    """Return the largest |delta logit| to the reference; None where that did not run, or for itself."""
    expected = results.logits.get(REFERENCE, {}).get(workload)
    found = results.logits.get(name, {}).get(workload)
    if name == REFERENCE or expected is None or found is None:
        return None
    return float(np.abs(np.array(found) - np.array(expected)).max())


def sizes_of(text: str) -> list[int]:
    """Read whole numbers separated by commas; none in an empty text or in 0.

    Raises:
        InputError: a part is not a whole number.
    """
    parts = [part.strip() for part in text.split(",") if part.strip() not in ("", "0")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"{text!r} must be whole numbers with commas between, such as 100,1000")
    return [int(part) for part in parts]


def print_tables(facts: dict[str, Any]) -> None:
    """Print what a run found, a table for each workload."""
    notes = {row["name"]: row["status"] for row in facts["contenders"] if row["status"] != "measured"}
    for size in facts["workloads"]:
        if size["name"] in facts["summary"]:
            _print_workload(size, facts["summary"][size["name"]], notes)
    cold = facts["cold_start_seconds"]
    if cold:
        rows = [[name, spread(Spread(**value), 2)] for name, value in cold.items()]
        show("cold start: a fresh process, up to its first score", ["contender", "seconds"], rows)
    per_pair = facts["seconds_per_pair"]
    if per_pair:
        first = next(iter(per_pair.values()))["median"]
        rows = [
            [name, spread(_scaled(value, 1e3), 2), f"{value['median'] / first:.3f}"] for name, value in per_pair.items()
        ]
        show(f"{OWN} with more candidates", ["candidates", "ms per pair", "of the first"], rows)


def _print_workload(size: dict[str, Any], found: dict[str, Any], notes: dict[str, str]) -> None:
    """Print one workload's table; those that did not take part have a line without figures."""
    padding = size["padded_tokens"] / size["tokens"] - 1
    title = f"{size['name']}: {size['pairs']} pairs in {size['calls']} calls a round, {size['tokens']} tokens"
    rows = []
    for name, figures in found.items():
        times, delta = figures["times_mlx_rerank"], figures["max_delta_logit"]
        rows.append([
            name,
            spread(Spread(**figures["pairs_per_second"])),
            spread(Spread(**figures["tokens_per_second"]), 0),
            f"{figures['p50_seconds'] * 1e3:.1f}",
            f"{figures['p95_seconds'] * 1e3:.1f}",
            spread(Spread(**times), 2) if times else "",
            "" if delta is None else f"{delta:.1e}",
        ])  # fmt: skip
    rows += [[name, status.partition("\n")[0]] for name, status in notes.items() if name not in found]
    header = ["contender", "pairs/s", "tokens/s", "p50 ms", "p95 ms", f"times {OWN}", "max |delta logit|"]
    show(f"{title}, {padding:.1%} padding in {OWN}'s batches", header, rows)


def _scaled(value: dict[str, float], factor: float) -> Spread:
    """Return a spread in another unit."""
    return Spread(**{name: number * factor for name, number in value.items()})


def _status(contender: Contender, results: Results) -> dict[str, Any]:
    """Return who a contender is and what became of it."""
    missing = contender.missing
    status = f"not installed: {', '.join(missing)}" if missing else results.problems.get(contender.name, "measured")
    facts = {name: getattr(contender, name) for name in ("name", "dtype", "device")}
    return {**facts, "computed_in": results.computed_in.get(contender.name), "status": status}


def _size(workload: Workload) -> dict[str, Any]:
    """Return how much a workload is."""
    return {
        "name": workload.name,
        "calls": len(workload.calls),
        "pairs": workload.pairs,
        "tokens": workload.tokens,
        "padded_tokens": workload.padded,
    }


def _settings(options: Options) -> dict[str, Any]:
    """Return the options that do not name a place on this machine."""
    return {name: value for name, value in asdict(options).items() if name not in ("model", "data")}
