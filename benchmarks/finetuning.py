"""What a few hundred labelled pairs do: a model before and after it is trained on a domain that it has not seen.

    python benchmarks/finetuning.py [--model mini] [--pairs 300] [--seeds 3] [--out finetuning.json]

The domain is made of Python's own library, which every reader has: the query is the first sentence of a function's
docstring, the document its code without the docstring. Of 300 labelled pairs, 75 are right ones, and each query has
three wrong ones that BM25 likes. Other modules than those trained on make the test: 100 queries, each with the right
function and the 19 that BM25 likes best among all of these modules, in the order that the model gives them.

    python benchmarks/finetuning.py --shape base [--pairs 300]

trains low-rank updates of random weights of a known shape instead, to tell the time and the memory that it takes.
"""

import argparse
import ast
import random
import shlex
import sys
import sysconfig
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from mlx_rerank.bench.checkpoints import SHAPES, seeded
from mlx_rerank.bench.report import about, write
from mlx_rerank.train import Example, TrainingOptions

WRONG = 3  # documents beside each right one, in training
CANDIDATES = 20  # of a test query
TESTED = 100
KINDS = {
    "all weights": {"learning_rate": 1e-4},
    "low-rank updates": {"lora_rank": 16, "learning_rate": 1e-3},
}


@dataclass(frozen=True)
class Function:
    """A function of the standard library.

    Args:
        module: the top-level one that it is in.
        says: the first sentence of its docstring.
        code: without the docstring.
    """

    module: str
    says: str
    code: str


def functions() -> list[Function]:
    """Return the documented functions of the standard library, each sentence once."""
    root, found = Path(sysconfig.get_path("stdlib")), {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3"} & set(parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for function in _documented(tree, parts[0].removesuffix(".py")):
            found.setdefault(function.says, function)
    return list(found.values())


def _documented(tree: ast.Module, module: str) -> Iterator[Function]:
    """Yield the functions of a module whose docstring begins with a sentence, and whose code is of some size."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or len(node.body) < 2:
            continue
        says = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ").strip()
        node.body, node.decorator_list = node.body[1:], []
        code = ast.unparse(node)
        if 25 <= len(says) <= 150 and 60 < len(code) < 800:
            yield Function(module, says, code)


def domain(pairs: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Return training and test data, of different modules.

    Args:
        pairs: labelled ones to train on.
        seed: of what is chosen.
    """
    all_of_it = functions()
    of_test = [function for function in all_of_it if zlib.crc32(function.module.encode()) % 3 == 0]
    of_training = [function for function in all_of_it if zlib.crc32(function.module.encode()) % 3]
    chosen = random.Random(seed).sample(of_training, pairs // (1 + WRONG))
    return _with_wrong_ones(chosen, of_training, WRONG), _with_wrong_ones(
        random.Random(0).sample(of_test, TESTED), of_test, CANDIDATES - 1
    )


def _with_wrong_ones(chosen: list[Function], among: list[Function], count: int) -> list[Example]:
    """Return queries, each with the right function and the others that BM25 likes best."""
    from mlx_rerank.train.negatives import bm25

    codes = [function.code for function in among]
    found = bm25([function.says for function in chosen], codes, 4 * count)
    examples = []
    for function, places in zip(chosen, found, strict=True):
        wrong = [codes[i] for i in places if codes[i] != function.code][:count]
        examples.append(Example(function.says, (function.code, *wrong), (1.0,) + (0.0,) * len(wrong)))
    return examples


def trained(model: str, options: TrainingOptions, data: list[Example], dev: list[Example] | None) -> dict[str, Any]:
    """Train, and return nDCG@10 before and after, seconds, and peak memory; runs in a process of its own."""
    from mlx_rerank.device.memory import usage
    from mlx_rerank.train import train

    history: list[dict[str, Any]] = []
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        train(data, Path(work) / "trained", model=model, dev=dev, options=options, report=history.append)
    used = usage()
    return {
        "before": history[0].get("dev_ndcg"),
        "after": history[-1].get("dev_ndcg"),
        "seconds": time.perf_counter() - begin,
        "mlx_peak_bytes": used.mlx_peak,
        "process_peak_bytes": used.process_peak,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--shape", choices=SHAPES, help="random weights of this shape instead: for time and memory")
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--token-budget", type=int, default=2048)
    parser.add_argument("--checkpoint-layers", action="store_true", help="less memory, more time")
    parser.add_argument("--out", default="finetuning.json")
    given = parser.parse_args()
    kinds = {"low-rank updates": KINDS["low-rank updates"]} if given.shape else KINDS
    shared = {
        "evaluate_every": 10**9,
        "checkpoint_layers": given.checkpoint_layers,
        "epochs": given.epochs,
        "max_length": given.max_length,
        "token_budget": given.token_budget,
    }
    rows = []
    with tempfile.TemporaryDirectory() as work:
        model = str(seeded(given.shape, Path(work))) if given.shape else given.model
        for kind, options in kinds.items():
            for seed in range(1 if given.shape else given.seeds):
                data, dev = domain(given.pairs, seed)
                chosen = TrainingOptions(**shared, **options, seed=seed)
                with get_context("spawn").Pool(1) as pool:
                    row = pool.apply(trained, (model, chosen, data, None if given.shape else dev))
                rows.append({"kind": kind, "seed": seed, "pairs": sum(len(e.documents) for e in data), **row})
                print(rows[-1], file=sys.stderr, flush=True)
    command = shlex.join(["python", "benchmarks/finetuning.py", *sys.argv[1:]])
    write(Path(given.out), {**about("finetuning", command), "rows": rows})
    print(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table, a row for each kind of training, averaged over seeds."""
    lines = ["| trained | nDCG@10 before | after | seconds | peak memory of the process |", "|---|---|---|---|---|"]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        cells = [kind]
        for name in ("before", "after"):
            values = [row[name] for row in own if row[name] is not None]
            cells.append(f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" if values else "")
        cells += [f"{np.mean([row['seconds'] for row in own]):.0f}"]
        cells += [f"{max(row['process_peak_bytes'] for row in own) / 1e6:,.0f} MB"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
