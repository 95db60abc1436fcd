"""The server: its throughput beside the library's, and many clients at once."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from mlx_rerank.bench.contenders import OWN, Contender
from mlx_rerank.bench.measures import Spread, growth, quantile, ratios
from mlx_rerank.bench.memory import held
from mlx_rerank.bench.process import THREAD_VARIABLES, Worker
from mlx_rerank.bench.report import show, spread
from mlx_rerank.bench.texts import Counter, Pairs, Texts
from mlx_rerank.checkpoints.hub import public_name, resolve
from mlx_rerank.device.names import parse_device
from mlx_rerank.errors import InputError, WorkerError

_LARGEST = 200  # documents of a request
_FEW = 8  # clients that keep the server busy while throughput is measured
_START = 120.0  # seconds that the server may take to load its model
_WARM_UP, _WINDOW = 10, 5  # seconds of load before memory's growth counts, and looks at it whose medians are compared
_LISTED = {"one call": "library, all pairs in one call", "calls": "library, a call a request", "http": "server"}


@dataclass(frozen=True)
class Options:
    """What a run is told.

    Args:
        model: an embedded model's name, a hub id or a directory.
        data: a directory in the BEIR layout; the package's samples if None.
        length: of every pair, in tokens.
        requests: of the comparison with the library.
        rounds: turns of library and server.
        clients: at once, under load.
        seconds: of load.
        threads: of each process.
        device: "gpu" or "cpu"; MLX's default one if None.
        seed: of texts and requests.
    """

    model: str = "mini"
    data: Path | None = None
    length: int = 32
    requests: int = 20
    rounds: int = 3
    clients: int = 64
    seconds: float = 60.0
    threads: int = 1
    device: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Reply:
    """What became of a request under load.

    Args:
        status: of HTTP, or the name of an error.
        seconds: that it took.
        pairs: that were asked about.
        deviation: largest distance of a logit from the library's; None where there are none.
    """

    status: int | str
    seconds: float
    pairs: int
    deviation: float | None = None


def run(options: Options) -> dict[str, Any]:
    """Measure, and return raw figures and their summary, ready for JSON.

    Raises:
        MissingDependencyError: psutil is not installed.
        InputError: the texts are too few, or the pairs longer than the model reads.
        CheckpointNotFoundError: the model's name leads nowhere.
        CheckpointError: its files cannot be used.
        DeviceError: this machine has no such device.
        WorkerError: a process ended before its work did, or the server answered with an error.
    """
    device = "gpu" if parse_device(options.device).type.name == "gpu" else "cpu"
    source = resolve(options.model)
    counter, texts = Counter(source), Texts.read(options.data, options.seed)
    if options.length > counter.max_length:
        raise InputError(f"pairs are cut to {counter.max_length} tokens: --length {options.length} is too large")
    sizes = request_sizes(options.requests, options.seed)
    pairs = texts.cut(counter.tokenizer, options.length, sum(sizes), special_tokens=counter.special_tokens, exact=False)
    calls = [pairs[end - size : end] for size, end in zip(sizes, np.cumsum(sizes).tolist(), strict=True)]
    own = Contender(OWN, "mlx_rerank", str(source), counter.max_length, "", device)
    with Worker(own, options.threads) as worker, serving(options, device) as (url, pid):
        expected = dict(zip(pairs, worker.score(pairs).logits, strict=True))
        rounds = [_round(worker, url, calls) for _ in range(options.rounds)]
        replies, memory, seconds = asyncio.run(_load(url, pid, calls, expected, options))
    return {
        "model": public_name(options.model),
        "texts": texts.name,
        "settings": {**asdict(options), "model": public_name(options.model), "data": texts.name, "device": device},
        "pairs": len(pairs),
        "documents_a_request": sizes,
        "rounds": rounds,
        "load": _summary(replies, memory, seconds),
    }


def request_sizes(count: int, seed: int) -> list[int]:
    """Return how many documents each request has: 1 to 200, evenly spread on a logarithmic scale."""
    random = np.random.default_rng(seed)
    return np.exp(random.uniform(0, np.log(_LARGEST), count)).round().astype(int).tolist()


@contextmanager
def serving(options: Options, device: str) -> Iterator[tuple[str, int]]:
    """Start a server in a process of its own, wait until it is ready, and give its address and its process's number.

    Raises:
        WorkerError: it is not ready in time.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlx_rerank", "serve", "--port", str(port), "--device", device]
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(options.threads))
    process = subprocess.Popen(
        [*command, "--model", options.model, "--log-level", "warning", "--timeout", "600"], env=environment
    )
    try:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + _START
        while not _ready(url):
            if process.poll() is not None or time.monotonic() > end:
                raise WorkerError(f"the server was not ready within {_START:g} s; its log is above")
            time.sleep(0.05)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def print_tables(facts: dict[str, Any]) -> None:
    """Print throughput, and what load did."""
    rounds, load = facts["rounds"], facts["load"]
    rows = []
    for key, name in _LISTED.items():
        seconds = [each[key] for each in rounds]
        paces = Spread.of([facts["pairs"] / value for value in seconds])
        share = ratios([each["one call"] for each in rounds], seconds)
        rows.append([name, spread(paces), spread(share, 2)])
    title = f"{len(facts['documents_a_request'])} requests with {facts['pairs']} pairs, {_FEW} clients"
    show(title, ["way", "pairs/s", "of one call's"], rows)
    figures = {
        "answered": ", ".join(f"{count} x {status}" for status, count in load["statuses"].items()),
        "pairs/s": f"{load['pairs_per_second']:.1f}",
        "latency p50, p90, p99, s": ", ".join(f"{value:.2f}" for value in load["latency"].values()),
        "of requests with up to 10 documents": ", ".join(f"{value:.2f}" for value in load["latency_small"].values()),
        "largest |delta logit| to the library": f"{load['deviation']:.1e}",
        "memory after warm-up, at the end, MB": ", ".join(f"{value / 1e6:.0f}" for value in load["memory"]),
        "its growth": f"{load['growth']:+.1%}",
    }
    title = f"{facts['settings']['clients']} clients for {facts['settings']['seconds']:g} s"
    show(title, ["", ""], [list(row) for row in figures.items()])


def _round(worker: Worker, url: str, calls: Sequence[Pairs]) -> dict[str, float]:
    """Return the seconds that each way takes for the same pairs."""
    together = worker.score([pair for call in calls for pair in call]).seconds
    apart = sum(worker.score(call).seconds for call in calls)
    return {"one call": together, "calls": apart, "http": asyncio.run(_all(url, calls))}


async def _all(url: str, calls: Sequence[Pairs]) -> float:
    """Send all requests, a few at a time, and return the seconds until the last answer."""
    waiting = list(calls)[::-1]

    async def client() -> None:
        while waiting:
            reply = await _ask(http, waiting.pop(), {})
            if reply.status != 200:
                raise WorkerError(f"the server answered {reply.status}")

    async with httpx.AsyncClient(base_url=url, timeout=None) as http:
        begin = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(_FEW)))
        return time.perf_counter() - begin


async def _load(
    url: str, pid: int, calls: Sequence[Pairs], expected: dict[tuple[str, str], float], options: Options
) -> tuple[list[Reply], list[int], float]:
    """Keep clients asking for some time.

    Returns:
        What became of each request, the server's memory every second, and the seconds until the last answer.
    """
    begin = time.monotonic()
    end = begin + options.seconds
    replies: list[Reply] = []
    memory: list[int] = []

    async def client(seed: int) -> None:
        random = np.random.default_rng(seed)
        while time.monotonic() < end:
            replies.append(await _ask(http, calls[int(random.integers(len(calls)))], expected))

    async def watch() -> None:
        while time.monotonic() < end:
            memory.append(held(pid)["resident"] or 0)
            await asyncio.sleep(1)

    limits = httpx.Limits(max_connections=options.clients)
    async with httpx.AsyncClient(base_url=url, timeout=None, limits=limits) as http:
        await asyncio.gather(watch(), *(client(options.seed + number) for number in range(options.clients)))
    return replies, memory, time.monotonic() - begin


async def _ask(http: httpx.AsyncClient, call: Pairs, expected: dict[tuple[str, str], float]) -> Reply:
    """Send a request and compare its logits with those that are expected, if there are any."""
    query, documents = call[0][0], [document for _, document in call]
    begin = time.perf_counter()
    try:
        answer = await http.post("/rerank", json={"query": query, "documents": documents, "raw_scores": True})
    except httpx.HTTPError as error:
        return Reply(type(error).__name__, time.perf_counter() - begin, len(call))
    seconds = time.perf_counter() - begin
    if answer.status_code == 429:
        await asyncio.sleep(float(answer.headers["retry-after"]))
    if answer.status_code != 200 or not expected:
        return Reply(answer.status_code, seconds, len(call))
    rows = answer.json()["results"]
    deviation = max(abs(row["relevance_score"] - expected[query, documents[row["index"]]]) for row in rows)
    return Reply(200, seconds, len(call), deviation if len(rows) == len(call) else float("inf"))


def _summary(replies: Sequence[Reply], memory: list[int], seconds: float) -> dict[str, Any]:
    """Return what became of the requests; the last was answered after this many seconds."""
    done = [reply for reply in replies if reply.status == 200]
    if not done:
        raise WorkerError(f"of {len(replies)} requests under load none was answered: give --seconds more")
    small = [reply for reply in done if reply.pairs <= 10] or done
    warm_up = min(_WARM_UP, len(memory) - 1)
    return {
        "statuses": dict(Tally(str(reply.status) for reply in replies)),
        "seconds": seconds,
        "pairs_per_second": sum(reply.pairs for reply in done) / seconds,
        "latency": _quantiles(done),
        "latency_small": _quantiles(small),
        "deviation": max(reply.deviation or 0.0 for reply in done),
        "memory": [memory[warm_up], memory[-1]],
        "growth": growth(memory, warm_up, _WINDOW),
        "replies": [asdict(reply) for reply in replies],
    }


def _quantiles(replies: Sequence[Reply]) -> dict[str, float]:
    """Return the seconds within which half, nine tenths, and all but one in a hundred are answered."""
    seconds = [reply.seconds for reply in replies]
    return {f"p{round(100 * share)}": quantile(seconds, share) for share in (0.5, 0.9, 0.99)}


def _ready(url: str) -> bool:
    """Tell whether a server answers requests."""
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False
