"""Whether a server keeps answering rightly, and in the same memory, whatever is done to it.

    python benchmarks/soak.py [--minutes 30] [--output soak.json]

Clients score pairs and compare each score with the library's. Meanwhile others go away before their answer, and send
bodies that are refused; models are unloaded whenever nobody asks for a second, the directory of one is replaced by
another model's and back, and the server is killed and started again every few minutes. Prints a line a minute: answers
by status, wrong scores (the exit code is 1 if there are any), and the server's age and memory.
"""

import argparse
import datetime as dt
import json
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random

import httpx
import numpy as np
import psutil
from safetensors.numpy import load_file, save_file

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.hub import EMBEDDED

CLIENTS = 4
LIFE = 300.0  # seconds of a server, at whose end it is killed
REPLACED = 20.0  # seconds between two changes of the second model's directory
BOUND = 2e-5  # of a score's distance from the library's: what pairs beside it do to a float32 logit
WORDS = ["panda", "bamboo", "bear", "rain", "vaccine", "river", "熊猫", "竹子", "mountain", "light"]
HEAD = "POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


class Soak:
    """A server, and all that is done to it."""

    def __init__(self, place: Path) -> None:
        """Write two models, of which one takes the other's place, and note what each scores."""
        random = Random(0)
        self.pairs = [
            (random.choice(WORDS), " ".join(random.choices(WORDS, k=random.randint(1, 60)))) for _ in range(60)
        ]
        self.directory, self.sources = place / "model", [place / "first", place / "second"]
        for source, shift in zip(self.sources, (0.0, 0.5), strict=True):
            shutil.copytree(EMBEDDED["mini"], source)
            weights = load_file(source / "model.safetensors")
            bias = next(name for name in weights if name.endswith("out_proj.bias"))
            changed = weights | {bias: weights[bias] + np.asarray(shift, weights[bias].dtype)}
            save_file(changed, source / "model.safetensors", {"format": "mlx"})
        self.expected = [Reranker(s, device="cpu", dtype="float32").score(self.pairs).tolist() for s in self.sources]
        shutil.copytree(self.sources[0], self.directory)
        self.answers, self.lock, self.done = Counter[str](), threading.Lock(), threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> subprocess.Popen[bytes]:
        """Start a server."""
        models = ["--model", "mini", "--model", f"replaced={self.directory}", "--keep-alive", "1"]
        options = ["--port", str(self.port), "--device", "cpu", "--dtype", "float32", "--log-level", "error"]
        return subprocess.Popen([sys.executable, "-m", "mlx_rerank", "serve", *options, *models])

    def count(self, what: str) -> None:
        """Count an answer."""
        with self.lock:
            self.answers[what] += 1

    def ask(self, seed: int) -> None:
        """Score pairs and compare, until the end."""
        random = Random(seed)
        while not self.done.is_set():
            model, places = random.choice(("mini", "replaced")), random.sample(range(len(self.pairs)), 4)
            query, document = zip(*(self.pairs[i] for i in places), strict=True)
            body = {"model": model, "text_1": query, "text_2": document}
            try:
                answer = httpx.post(f"{self.url}/score", json=body, timeout=60)
            except httpx.HTTPError as error:
                self.count(type(error).__name__)
                time.sleep(0.2)
                continue
            self.count(str(answer.status_code))
            if answer.status_code == 200:
                scores = [row["score"] for row in answer.json()["data"]]
                right = [[expected[i] for i in places] for expected in self.expected[: 1 if model == "mini" else 2]]
                self.count("right" if any(_near(scores, one) for one in right) else "WRONG")
            time.sleep(random.choice((0, 0, 0, 0.01, 2.5)))  # at times long enough for models to be unloaded

    def disturb(self) -> None:
        """Leave before the answer, and send what is refused, until the end."""
        address, headers = ("127.0.0.1", self.port), {"content-type": "application/json"}
        costly = {"query": "a", "documents": ["\ufdfa" * 60_000] * 20}
        bodies = [b"[" * 200_000, b'{"query": "a", "documents": [' + b"[]," * 2_000_000 + b"[]]}", b"{"]
        bodies.append(json.dumps(costly, ensure_ascii=False).encode())
        long = json.dumps({"query": "a", "documents": [" ".join(WORDS) * 200] * 50}).encode()
        while not self.done.wait(0.5):
            with suppress(OSError, httpx.HTTPError), socket.create_connection(address, timeout=5) as connection:
                connection.sendall(HEAD.format(len(long)).encode() + long)
                for body in bodies:
                    httpx.post(f"{self.url}/rerank", content=body, headers=headers)

    def replace(self) -> None:
        """Put the other model in the directory's place, again and again, until the end."""
        for turn in range(1, 10**9):
            if self.done.wait(REPLACED):
                return
            new, old = self.directory.with_name("new"), self.directory.with_name("old")
            shutil.copytree(self.sources[turn % 2], new)
            self.directory.rename(old)
            new.rename(self.directory)
            shutil.rmtree(old)


def _near(scores: list[float], expected: list[float]) -> bool:
    """Tell whether scores are those of one model."""
    return all(abs(score - right) < BOUND for score, right in zip(scores, expected, strict=True))


def watch(soak: Soak, minutes: float) -> list[dict[str, float]]:
    """Run servers, one after the other, print a line a minute, and return each minute's figures."""
    rows, begin, process, born = [], time.monotonic(), soak.start(), time.monotonic()
    try:
        while time.monotonic() < begin + 60 * minutes:
            time.sleep(60 if minutes >= 1 else 60 * minutes)
            age, memory = time.monotonic() - born, psutil.Process(process.pid).memory_info().rss / 1e6
            row = {"minute": (time.monotonic() - begin) / 60, "age_seconds": age, "memory_mb": memory}
            rows.append(row | dict(soak.answers))
            print(f"{row['minute']:5.1f} min  age {age:4.0f} s  {memory:6.0f} MB  {dict(soak.answers)}", flush=True)
            if process.poll() is not None:
                raise SystemExit(f"the server ended by itself with exit code {process.returncode}")
            if age > LIFE:
                process.kill()
                process.wait()
                process, born = soak.start(), time.monotonic()
    finally:
        process.terminate()
        print(f"exit code of the last server: {process.wait()}")
    return rows


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    machine = f"{platform.system()} {platform.machine()}, {platform.processor() or 'unknown processor'}"
    print(f"{dt.date.today().isoformat()}, {machine}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mlx-rerank-soak-") as place:
        soak = Soak(Path(place))
        asking = [threading.Thread(target=soak.ask, args=(seed,)) for seed in range(CLIENTS)]
        threads = [*asking, threading.Thread(target=soak.disturb), threading.Thread(target=soak.replace)]
        for thread in threads:
            thread.start()
        try:
            rows = watch(soak, arguments.minutes)
        finally:
            soak.done.set()
            for thread in threads:
                thread.join()
    if arguments.output:
        report = {"date": dt.date.today().isoformat(), "machine": machine, "minutes": rows}
        arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"{soak.answers['right']} answers compared, {soak.answers['WRONG']} wrong")
    raise SystemExit(bool(soak.answers["WRONG"]) or not soak.answers["right"])


if __name__ == "__main__":
    main()
