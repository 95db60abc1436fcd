"""How long normal requests take while others send bodies that are as costly as a server takes them.

    python benchmarks/hostile.py [--model mini] [--seconds 20] [--output hostile.json]

A client ranks two documents again and again: first alone, then beside clients that send one kind of body without end.
These run in a process of their own at the lowest priority, as elsewhere they would take nothing from the server's
processor but what it reads and answers. Prints for each kind what they were answered, and the 50th and 99th percentile
of the normal requests' milliseconds.
"""

import argparse
import datetime as dt
import json
import multiprocessing
import os
import platform
import threading
import time
from collections import Counter
from contextlib import suppress
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path

import httpx
import numpy as np

from mlx_rerank.bench.serving import Options, serving

NORMAL = {"query": "what do pandas eat?", "documents": ["Pandas eat bamboo.", "It rains."]}
SENDERS = 8
SIZE = 7_900_000  # bytes, a little less than a server takes


def bodies() -> dict[str, bytes]:
    """Return a body of each kind: JSON that is costly to read, then texts that are costly to tokenise."""
    ask = lambda documents: json.dumps({"query": "a", "documents": documents}, ensure_ascii=False).encode()  # noqa: E731
    unread = b'{"query":"a","documents":["b"],"unread":%s}'
    text = "Pandas eat bamboo in the mountains. "
    return {
        "nested lists": unread % (b"[" + b"[]," * (SIZE // 3) + b"[]]"),
        "as many lists as may be": unread % (b'{"a":[' + b"[]," * 45_000 + b"[]]}"),
        "long numbers": unread % (b'{"a":[' + (b"9" * 399 + b",") * (SIZE // 400) + b"0]}"),
        "many names": b'{"query":"a","documents":["b"]' + b"".join(b',"%d":1' % i for i in range(SIZE // 11)) + b"}",
        "escapes": unread % (b'"' + rb"\u0041" * (SIZE // 6) + b'"'),
        "U+FDFA": ask(["\ufdfa" * 60_000] * (SIZE // 180_000)),
        "U+FDFA, many texts": ask(["\ufdfa" * 2_600] * 1000),
        "long texts": ask([text * (190_000 // len(text))] * (SIZE // 190_000)),
        "single letters": ask(["a " * (SIZE // 2_000 - 10)] * 1000),
    }


def send(url: str, body: bytes, answers: "Counter[str]", done: Event) -> None:
    """Send a body again and again, and count the answers."""
    with httpx.Client(timeout=300, headers={"content-type": "application/json"}) as client:
        while not done.is_set():
            answers[str(client.post(f"{url}/rerank", content=body).status_code)] += 1


def send_all(url: str, body: bytes, done: Event, told: "SimpleQueue[dict[str, int]]") -> None:
    """Send a body by several clients at once until it is done, then tell what they were answered."""
    os.nice(19)
    answers = Counter[str]()
    senders = [threading.Thread(target=send, args=(url, body, answers, done)) for _ in range(SENDERS)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    told.put(dict(answers))


def milliseconds(url: str, seconds: float) -> list[float]:
    """Return how long each of some seconds' normal requests takes."""
    found, end = [], time.monotonic() + seconds
    with httpx.Client(timeout=300) as client:
        while time.monotonic() < end:
            begin = time.perf_counter()
            client.post(f"{url}/rerank", json=NORMAL).raise_for_status()
            found.append(1000 * (time.perf_counter() - begin))
    return found


def beside(url: str, body: bytes | None, seconds: float) -> tuple[list[float], dict[str, int]]:
    """Return the normal requests' times beside those who send a body, and what these were answered."""
    if body is None:
        return milliseconds(url, seconds), {}
    processes = multiprocessing.get_context("spawn")
    done, told = processes.Event(), processes.SimpleQueue()
    senders = processes.Process(target=send_all, args=(url, body, done, told), daemon=True)
    senders.start()
    try:
        time.sleep(3.0)  # until all have begun
        times = milliseconds(url, seconds)
    finally:
        done.set()
    answers = told.get()
    senders.join()
    return times, answers


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    machine = f"{platform.system()} {platform.machine()}, {platform.processor() or 'unknown processor'}"
    print(f"{dt.date.today().isoformat()}, {machine}, {SENDERS} senders of bodies of {SIZE / 1e6:g} MB")
    rows = []
    with serving(Options(arguments.model), "cpu") as (url, _):
        milliseconds(url, 2.0)  # what is first is slow
        for kind, body in {"alone": None, **bodies()}.items():
            times, answers = beside(url, body, arguments.seconds)
            middle, late = np.quantile(times, (0.5, 0.99)).tolist()
            rows.append({"kind": kind, "p50": middle, "p99": late, "requests": len(times), "answers": answers})
            share = late / rows[0]["p99"]
            print(f"{kind:<26}{len(times):6} requests  p50 {middle:7.1f}  p99 {late:7.1f}  {share:5.1f} x  {answers}")
    if arguments.output:
        report = {"date": dt.date.today().isoformat(), "machine": machine, "rows": rows}
        arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
