"""How long short requests take while long ones are under way, where an answer waits for the next batch, and where not.

    python benchmarks/latency.py [--model mini] [--device cpu] [--token-budget 512] [--rounds 5] [--seconds 10]
        [--output latency.json]

Two clients of one queue, as the server has it: one ranks 64 long documents again and again, the other two short ones.
The thread that starts batches once waited for them as well, for each after the next was started; that way is built
here again, and takes turns with the present one. Prints for both the 50th and 99th percentile of the short requests'
milliseconds, and the tokens of a second that all requests together got.
"""

import argparse
import datetime as dt
import json
import platform
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mlx_rerank import Reranker
from mlx_rerank.bench.measures import quantile
from mlx_rerank.bench.texts import Counter, Texts
from mlx_rerank.checkpoints.hub import resolve
from mlx_rerank.device.thread import device_thread
from mlx_rerank.pairs.encoded import EncodedPairs
from mlx_rerank.server.scheduler import Scheduler

LONG, SHORT = (64, 128), (2, 32)  # documents, and tokens of each pair
PAUSE = 0.02  # seconds between two short requests, so that they come at any time of a batch


class OneThread:
    """The device thread of before: it finishes a batch when the next one is started, or when there is none."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._started: tuple[Future[Any], Callable[[], Any]] | None = None

    def submit_parts(self, prepare: Any, start: Any, finish: Any, *args: Any) -> "Future[Any]":
        """Queue a job."""
        future: Future[Any] = Future()
        self._jobs.put((future, prepare, start, finish, args))
        device_thread().submit(self._turn)
        return future

    def settle(self) -> None:
        """Finish the job that is under way."""
        self._end()

    def _turn(self) -> None:
        future, prepare, start, finish, args = self._jobs.get()
        prepared = prepare(*args)
        start(prepared)
        self._end()
        self._started = future, lambda: finish(prepared)
        if self._jobs.empty():
            self._end()

    def _end(self) -> None:
        if self._started:
            (future, finish), self._started = self._started, None
            future.set_result(finish())


@contextmanager
def clients(scheduler: Scheduler, long: EncodedPairs):
    """Keep the device at long requests."""
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            scheduler.submit(long).result.result()

    client = threading.Thread(target=ask)
    client.start()
    try:
        yield
    finally:
        ended.set()
        client.join()


def measure(reranker: Reranker, thread: Any, long: EncodedPairs, short: EncodedPairs, seconds: float) -> dict[str, Any]:
    """Return the seconds of each short request, and the tokens a second of all."""
    engine, model = reranker.engine, reranker.model
    engine._thread = thread
    scheduler = Scheduler(engine, model.batching(), model.encoder.pad_token_id)
    taken, random = [], np.random.default_rng(0)
    with clients(scheduler, long):
        begin, tokens = time.perf_counter(), engine.tokens
        while time.perf_counter() < begin + seconds:
            time.sleep(random.uniform(0, 2 * PAUSE))
            asked = time.perf_counter()
            scheduler.submit(short).result.result()
            taken.append(time.perf_counter() - asked)
        pace = (engine.tokens - tokens) / (time.perf_counter() - begin)
    scheduler.close()
    return {"seconds": taken, "tokens_per_second": pace}


def main() -> None:
    """Measure both ways in turn, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--device", choices=("gpu", "cpu"))
    parser.add_argument("--token-budget", type=int, help="of a batch; the usual one if none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    reranker = Reranker(options.model, device=options.device, token_budget=options.token_budget)
    texts, counter = Texts.read(None, 0), Counter(resolve(options.model))
    encoded = []
    for count, length in (LONG, SHORT):
        pairs = texts.cut(counter.tokenizer, length, count, special_tokens=counter.special_tokens, exact=False)
        encoded.append(reranker.encoder.encode(pairs, reranker.limits))
    long, short = encoded
    ways = {"waits for the next batch": OneThread(), "does not": device_thread()}
    for thread in ways.values():
        measure(reranker, thread, long, short, 1.0)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, thread in ways.items():
            found[name].append(measure(reranker, thread, long, short, options.seconds))
    for name, rounds in found.items():
        taken = [1000 * value for each in rounds for value in each["seconds"]]
        paces = [each["tokens_per_second"] for each in rounds]
        p50, p99 = (quantile(taken, share) for share in (0.5, 0.99))
        print(
            f"an answer {name:24} {len(taken):5} short requests, p50 {p50:6.1f} ms, p99 {p99:6.1f} ms; "
            f"{np.median(paces):7.0f} tokens/s ({min(paces):.0f} to {max(paces):.0f})"
        )
    if options.output:
        about = {"date": dt.date.today().isoformat(), "machine": platform.platform(), "model": options.model}
        options.output.write_text(json.dumps({**about, "device": reranker.device, "rounds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
