"""How much of a batch is padding: mlx-rerank's own batches, and the usual ones, on several sets of texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_rerank.bench.contenders import OWN
from mlx_rerank.bench.report import show
from mlx_rerank.bench.texts import Counter, Texts, padded_tokens
from mlx_rerank.checkpoints.hub import public_name, resolve
from mlx_rerank.pairs.batching import Batching

USUAL_BATCH = 32  # rows, as sentence-transformers has by default


def run(
    model: str, data: Sequence[Path | None], candidates: int, queries: int, max_length: int | None, seed: int
) -> dict[str, Any]:
    """Count, and return a row for each set of texts.

    Args:
        model: whose tokenizer counts.
        data: directories in the BEIR layout; None is the package's samples.
        candidates: in one call.
        queries: calls, each with candidates of its own.
        max_length: most tokens of a pair.
        seed: of the choice of texts.

    Raises:
        InputError: a directory cannot be read.
        CheckpointError: the model's files cannot be used.
    """
    counter = Counter(resolve(model), max_length)
    rows = []
    for directory in data:
        texts = Texts.read(directory, seed)
        pairs = texts.natural(candidates * queries)
        calls = [pairs[start : start + candidates] for start in range(0, len(pairs), candidates)]
        rows.append({"texts": texts.name, **count([counter.lengths(call) for call in calls], counter.token_budget)})
    settings = {"candidates": candidates, "queries": queries, "max_length": counter.max_length, "seed": seed}
    settings["token_budget"] = counter.token_budget
    return {"model": public_name(model), "settings": settings, "rows": rows}


def count(calls: Sequence[np.ndarray], token_budget: int) -> dict[str, Any]:
    """Return the tokens of calls, and of the batches that each way of batching makes of them.

    Args:
        calls: tokens of each pair, int64 [candidates] each.
        token_budget: most padded tokens of mlx-rerank's own batches.
    """
    every = np.concatenate(calls)
    return {
        "pairs": len(every),
        "tokens": int(every.sum()),
        "shortest": int(every.min()),
        "median": float(np.median(every)),
        "longest": int(every.max()),
        "padded_tokens": sum(padded_tokens(call, Batching(token_budget).plan(call)) for call in calls),
        "padded_tokens_sorted": sum(padded_tokens(np.sort(call)[::-1], _in_order(len(call))) for call in calls),
        "padded_tokens_unsorted": sum(padded_tokens(call, _in_order(len(call))) for call in calls),
    }


def print_tables(facts: dict[str, Any]) -> None:
    """Print padded / real tokens of each way."""
    header = [
        "texts",
        "pairs",
        "tokens a pair",
        OWN,
        f"{USUAL_BATCH} rows, sorted",
        f"{USUAL_BATCH} rows, as they come",
    ]
    keys = ("padded_tokens", "padded_tokens_sorted", "padded_tokens_unsorted")
    rows = [
        [
            row["texts"],
            str(row["pairs"]),
            f"{row['median']:.0f} ({row['shortest']}..{row['longest']})",
            *(f"{row[key] / row['tokens']:.3f}" for key in keys),
        ]
        for row in facts["rows"]
    ]
    settings = facts["settings"]
    show(f"padded / real tokens, {settings['queries']} calls with {settings['candidates']} candidates", header, rows)


def _in_order(rows: int) -> list[np.ndarray]:
    """Return batches of the usual size, in the order given."""
    return np.split(np.arange(rows), range(USUAL_BATCH, rows, USUAL_BATCH))
