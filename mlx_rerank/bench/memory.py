"""Memory: of each library with the model loaded, and of mlx-rerank over many batches of different shapes."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mlx_rerank.bench.checkpoints import hugging_face
from mlx_rerank.bench.contenders import OWN, Contender, roster
from mlx_rerank.bench.measures import growth
from mlx_rerank.bench.process import Worker
from mlx_rerank.bench.report import show
from mlx_rerank.bench.texts import Counter, Texts
from mlx_rerank.checkpoints.hub import public_name, resolve
from mlx_rerank.device.names import parse_device
from mlx_rerank.device.optional import imported
from mlx_rerank.errors import InputError, WorkerError

_SHORTEST = 16  # tokens of a pair, the least that hold some of a query and of a document
_KINDS = ("resident", "active", "cache", "peak")


@dataclass(frozen=True)
class Options:
    """What a run is told.

    Args:
        model: an embedded model's name, a hub id or a directory.
        data: a directory in the BEIR layout; the package's samples if None.
        shapes: batches, no two of the same rows and length.
        warm_up: batches before growth counts.
        tokens: most of a batch, rows x length.
        threads: of each process.
        device: "gpu" or "cpu"; MLX's default one if None.
        seed: of shapes and texts.
    """

    model: str = "mini"
    data: Path | None = None
    shapes: int = 1000
    warm_up: int = 200
    tokens: int = 1024
    threads: int = 1
    device: str | None = None
    seed: int = 0


def run(options: Options) -> dict[str, Any]:
    """Measure, and return raw figures and their summary, ready for JSON.

    Raises:
        MissingDependencyError: psutil is not installed.
        InputError: there are not so many shapes, or the texts are too few.
        CheckpointNotFoundError: the model's name leads nowhere.
        CheckpointError: its files cannot be used.
        DeviceError: this machine has no such device.
        WorkerError: mlx-rerank's own process ended before its work did.
    """
    imported("psutil", extra=None)
    if options.shapes <= options.warm_up:
        raise InputError(f"{options.shapes} shapes leave nothing after a warm-up of {options.warm_up}: ask for more")
    device = "gpu" if parse_device(options.device).type.name == "gpu" else "cpu"
    source = resolve(options.model)
    counter, texts = Counter(source), Texts.read(options.data, options.seed)
    chosen = choose_shapes(options.shapes, options.tokens, counter.max_length, options.seed)
    with tempfile.TemporaryDirectory(prefix="mlx-rerank-bench-") as name:
        own = Contender(OWN, "mlx_rerank", str(source), counter.max_length, "", device)
        directory = str(hugging_face(source, Path(name)))
        everybody = roster(directory, counter.max_length, device, str(Path(name) / "model.onnx"))
        peers = [contender for contender in everybody if contender.library != "mlx_rerank"]
        loaded = {contender.name: _loaded(contender, options.threads) for contender in [*variants(own), *peers]}
        series = _over_shapes(own, options.threads, texts, counter, chosen)
    grown = {kind: growth([row[kind] for row in series], options.warm_up) for kind in ("resident", "active")}
    return {
        "model": public_name(options.model),
        "texts": texts.name,
        "settings": {"shapes": options.shapes, "warm_up": options.warm_up, "tokens": options.tokens, "device": device},
        "loaded": loaded,
        "growth": grown,
        "distinct_shapes": len({(row["rows"], row["length"]) for row in series}),
        "batches": series,
    }


def variants(own: Contender) -> list[Contender]:
    """Return mlx-rerank as it is by default, and with its embeddings resident and mapped."""
    choices = ("resident", "mapped")
    return [own, *(replace(own, name=f"{OWN}, embeddings {how}", options={"embeddings": how}) for how in choices)]


def choose_shapes(count: int, tokens: int, longest: int, seed: int = 0) -> list[tuple[int, int]]:
    """Return different (rows, length) of batches, drawn from all that have no more than so many tokens.

    Raises:
        InputError: there are fewer than that.
    """
    shortest = min(_SHORTEST, longest)
    every = [(rows, length) for length in range(shortest, longest + 1) for rows in range(1, tokens // length + 1)]
    if len(every) < count:
        raise InputError(f"batches of at most {tokens} tokens have {len(every)} shapes, not {count}: raise --tokens")
    return [every[i] for i in np.random.default_rng(seed).permutation(len(every))[:count]]


def print_tables(facts: dict[str, Any]) -> None:
    """Print what is resident with the model loaded, and what grew."""
    rows = [
        [name, row["status"].partition("\n")[0]]
        if "resident" not in row
        else [name, *(_megabytes(row[kind]) for kind in ("resident", "unique", "active"))]
        for name, row in facts["loaded"].items()
    ]
    header = ["contender", "resident MB", "of it shared with nobody", "of it MLX's arrays"]
    show("after loading and one pair", header, rows)
    batches, settings = facts["batches"], facts["settings"]
    rows = [
        [kind, _megabytes(batches[settings["warm_up"]][kind]), _megabytes(batches[-1][kind]), grown]
        for kind in _KINDS
        for grown in [f"{facts['growth'][kind]:+.2%}" if kind in facts["growth"] else ""]
    ]
    title = f"{OWN} over {facts['distinct_shapes']} shapes of batches, from the {settings['warm_up']}th on"
    show(title, ["MB", "after warm-up", "at the end", "growth"], rows)


def _loaded(contender: Contender, threads: int) -> dict[str, Any]:
    """Return what a fresh process holds once it has scored a pair."""
    if contender.missing:
        return {"status": f"not installed: {', '.join(contender.missing)}"}
    try:
        with Worker(contender, threads) as worker:
            return {"status": "measured", **held(worker.pid), "active": (worker.mlx or {}).get("active")}
    except WorkerError as error:
        return {"status": str(error)}


def _over_shapes(
    own: Contender, threads: int, texts: Texts, counter: Counter, shapes: Sequence[tuple[int, int]]
) -> list[dict[str, int]]:
    """Score a batch of each shape, and return what was held after each."""
    series = []
    with Worker(own, threads) as worker:
        for rows, length in tqdm(shapes, desc="Measuring", disable=None, leave=False):
            pairs = texts.cut(counter.tokenizer, length, rows, special_tokens=counter.special_tokens, exact=False)
            mlx = worker.score(pairs).mlx or {}
            longest = int(counter.lengths(pairs).max())
            series.append({"rows": rows, "length": longest, "resident": held(worker.pid)["resident"], **mlx})
    return series


def held(pid: int) -> dict[str, int | None]:
    """Return the bytes of a process that are resident, and those that no other process shares.

    Raises:
        MissingDependencyError: psutil is not installed.
    """
    psutil = imported("psutil", extra=None)
    process = psutil.Process(pid)
    try:
        unique = process.memory_full_info().uss
    except psutil.Error:  # a system that does not tell
        unique = None
    return {"resident": process.memory_info().rss, "unique": unique}


def _megabytes(size: int | None) -> str:
    """Return bytes in units of 1e6, or an empty text for None."""
    return "" if size is None else f"{size / 1e6:.1f}"
