"""Whether a score is ever of two models, while a model's directory is replaced again and again.

    python benchmarks/replacements.py [--minutes 10] [--seed 0]

Three models of one shape, with vocabularies of one size in another order each, take turns in one directory: by mv, by
cp, or deleted and put back. Meanwhile a library process that unloads its model all the time, with a score cache, and a
server that keeps models for a tenth of a second, score the same pairs. Each answer must be that of one of the three
models, whole, or an error that says what happened. At the end whoever opens each model must find in the cache what that
model gives. Exit code 1 where anything is wrong.
"""

import argparse
import json
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mlx_rerank import Reranker
from mlx_rerank.bench.checkpoints import seeded
from mlx_rerank.errors import CheckpointError, CheckpointNotFoundError

QUERY = "what do pandas eat?"
WORDS = ("giant pandas eat bamboo", "the bear sleeps", "it rains in the sea", "tea is drunk", "in China", "no")
DOCUMENTS = [" ".join(random.Random(number).choices(WORDS, k=6)) for number in range(2000)]
PAIRS = [(QUERY, document) for document in DOCUMENTS]
FEW = 8  # documents of a call
NEAR = 1e-4  # |delta logit|; the models are further apart
SHAPE = {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2}


def make_models(work: Path) -> list[Path]:
    """Write three models of one shape, whose vocabularies have another order each."""
    from mlx_rerank.bench import checkpoints

    checkpoints.SHAPES["storm"] = SHAPE
    made = []
    for number in range(3):
        place = work / str(number)
        place.mkdir()
        directory = seeded("storm", place, seed=number)
        tokenizer = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = tokenizer["model"]["vocab"]
        middle = len(vocabulary) // 2 + number * 1000
        tokenizer["model"]["vocab"] = [*vocabulary[:10], *vocabulary[middle:-1], *vocabulary[10:middle], vocabulary[-1]]
        (directory / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
        made.append(directory)
    return made


def replace(target: Path, model: Path, how: str) -> None:
    """Put a model's files into a directory, as people do: with mv, with cp, or by deleting it and putting it back."""
    new = target.with_suffix(".new")
    if how != "overwrite":
        shutil.copytree(model, new)
    if how == "delete":
        shutil.rmtree(target)
        new.rename(target)
        return
    command, source = ("cp", model) if how == "overwrite" else ("mv", new)
    subprocess.run([command, *source.iterdir(), target], check=True)  # one file right after the other
    shutil.rmtree(new, ignore_errors=True)


class Storm:
    """What was found so far."""

    def __init__(self, target: Path, expected: np.ndarray, minutes: float) -> None:
        """Take over where the models take turns, and each one's logits, float32 [models, pairs]."""
        self.target, self.expected, self.end = target, expected, time.monotonic() + 60 * minutes
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def going_on(self) -> bool:
        """Tell whether there is time left."""
        return time.monotonic() < self.end

    def judge(self, who: str, chosen: list[int], logits: np.ndarray | list[float]) -> None:
        """Count an answer to the chosen pairs, and note it where it is of none of the models."""
        near = np.abs(self.expected[:, chosen] - logits).max(axis=1) <= NEAR
        self.counts[f"{who}: {'right' if near.any() else 'WRONG'}"] += 1
        if not near.any():
            self.wrong.append(f"{who}: {[round(float(logit), 4) for logit in logits]}")

    def replace_at_random(self, models: list[Path], seed: int) -> None:
        """Replace the directory by one of the models, now and then."""
        draw = random.Random(seed)
        while self.going_on():
            time.sleep(draw.choice([0.02, 0.3, 1.0, 2.0]))
            how = draw.choice(["rename", "overwrite", "delete"])
            replace(self.target, draw.choice(models), how)
            self.counts[f"replaced: {how}"] += 1

    def use_the_library(self, cache: Path, embeddings: str) -> None:
        """Score in this process, and load the model again and again."""
        reranker, draw = None, random.Random(embeddings)
        who = f"library, {embeddings}"
        while self.going_on():
            with self.expecting_errors(who) as told:
                kept = draw.choice([cache, None])
                reranker = reranker or Reranker(self.target, embeddings=embeddings, score_cache=kept)
                chosen = draw.sample(range(len(PAIRS)), FEW)
                self.judge(who, chosen, reranker.logits([PAIRS[i] for i in chosen]).logits)
                if draw.random() < 0.1:
                    reranker = None
                elif draw.random() < 0.3:
                    reranker.unload()
            if told:
                reranker = None
                time.sleep(0.02)

    @contextmanager
    def expecting_errors(self, who: str) -> Iterator[list[Exception]]:
        """Count an error that says what is wrong with the files; give the list that it is put on."""
        told: list[Exception] = []
        try:
            yield told
        except (CheckpointError, CheckpointNotFoundError) as error:
            self.counts[f"{who}: {type(error).__name__}"] += 1
            told.append(error)

    def use_the_server(self, url: str) -> None:
        """Ask a server that unloads its model whenever nobody asks for a moment."""
        draw = random.Random("server")
        while self.going_on():
            chosen = draw.sample(range(len(PAIRS)), FEW)
            texts = [DOCUMENTS[i] for i in chosen]
            body = json.dumps({"query": QUERY, "texts": texts, "raw_scores": True}).encode()
            asked = urllib.request.Request(f"{url}/tei/rerank", body, {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(asked, timeout=30) as answer:
                    rows = sorted(json.load(answer), key=lambda row: row["index"])
                self.judge("server", chosen, [row["score"] for row in rows])
            except urllib.error.HTTPError as error:
                self.counts[f"server: {error.code}"] += 1
            time.sleep(draw.choice([0, 0.05, 0.5]))


@contextmanager
def serving(target: Path) -> Iterator[str]:
    """Run a server of the directory, and give its address."""
    command = [sys.executable, "-m", "mlx_rerank", "serve", "--model", f"m={target}", "--port", "0"]
    command += ["--keep-alive", "0.1", "--log-format", "json"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    url = next(line for line in process.stderr if "listening on" in line).split("listening on ")[1].split('"')[0]
    threading.Thread(target=process.stderr.read, daemon=True).start()  # or the pipe would be full
    try:
        yield url
    finally:
        process.terminate()
        process.wait(30)


def main() -> None:
    """Raise the storm, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        models = make_models(work)
        target = Path(shutil.copytree(models[0], work / "model"))
        expected = np.stack([Reranker(model).logits(PAIRS).logits for model in models])
        apart = [np.median(np.abs(expected[i] - expected[j])) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert min(apart) > 1000 * NEAR  # so that a mixture is no model's
        with serving(target) as url:
            storm = Storm(target, expected, given.minutes)
            caches = {embeddings: work / f"{embeddings}.db" for embeddings in ("resident", "mapped")}
            tasks = [threading.Thread(target=storm.use_the_library, args=(c, e)) for e, c in caches.items()]
            tasks.append(threading.Thread(target=storm.use_the_server, args=(url,)))
            tasks.append(threading.Thread(target=storm.replace_at_random, args=(models, given.seed)))
            for task in tasks:
                task.start()
            for task in tasks:
                task.join()
        for cache in caches.values():
            for number, model in enumerate(models):
                shutil.rmtree(target)
                shutil.copytree(model, target)
                found = Reranker(target, score_cache=cache).logits(PAIRS).logits
                if np.abs(found - expected[number]).max() > NEAR:
                    storm.wrong.append(f"{cache.name} has other scores of model {number}")
    print(f"{given.minutes:g} minutes, seed {given.seed}; {platform.platform()}, {time.ctime()}")
    print(*(f"{what:<45}{count:>8}" for what, count in sorted(storm.counts.items())), sep="\n")
    print(f"{len(storm.wrong)} wrong", *storm.wrong[:20], sep="\n")
    sys.exit(bool(storm.wrong))


if __name__ == "__main__":
    main()
