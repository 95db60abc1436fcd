"""What a first stage saves and costs, worked out from the logits that each of two models has for all candidates.

Reranker(STRONG, first_stage=FIRST, keep=N) ranks as is worked out here; tests/integration/test_quality.py compares.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from relevance import Run, Task, ndcg

from mlx_rerank.bench import texts
from mlx_rerank.bench.flops import operations
from mlx_rerank.checkpoints.hub import resolve
from mlx_rerank.models.cost import Cost

TOP = 10  # documents whose overlap is counted


@dataclass(frozen=True)
class Stage:
    """A model, and what it makes of every candidate.

    Args:
        cost: of its tokens.
        runs: its logits, by task.
        tokens: that it reads of each candidate, by task, query and document.
    """

    cost: Cost
    runs: Mapping[str, Run]
    tokens: Mapping[str, Mapping[str, Mapping[str, int]]]

    @classmethod
    def of(cls, model: str, tasks: Sequence[Task], runs: Mapping[str, Run], max_length: int) -> "Stage":
        """Return a model as a stage, its tokens counted."""
        counter = texts.Counter(resolve(model), max_length)
        tokens: dict[str, dict[str, dict[str, int]]] = {}
        for task in tasks:
            for query, found in runs[task.name].items():
                lengths = counter.lengths([(task.queries[query], task.documents[document]) for document in found])
                tokens.setdefault(task.name, {})[query] = dict(zip(found, lengths.tolist(), strict=True))
        return cls(counter.cost, runs, tokens)


def measure(tasks: Sequence[Task], first: Stage, strong: Stage, keeps: Sequence[int]) -> list[dict[str, Any]]:
    """Return what each set comes to with so many candidates kept of each query.

    Returns:
        For each set and keep: nDCG@10 of the first stage alone, of both, and of the strong model alone; the share of
        the strong model's ten best documents that are among those of both, averaged over queries with more than ten;
        and of the tokens and of the arithmetic of the strong model alone, the shares that it reads and that both do.
    """
    rows = []
    for group in dict.fromkeys(task.group for task in tasks):
        of_group = [task for task in tasks if task.group == group]
        rows += [{"set": group, "keep": keep, **_row(of_group, first, strong, keep)} for keep in keeps]
    return rows


def kept(logits: Mapping[str, float], count: int) -> list[str]:
    """Return the best documents, equal ones in the order given."""
    return sorted(logits, key=lambda document: -logits[document])[:count]


def both(first: Run, strong: Run, keep: int) -> dict[str, dict[str, float]]:
    """Return the strong model's logits of those candidates that a first stage keeps."""
    chosen = {query: set(kept(logits, keep)) for query, logits in first.items()}
    return {query: {d: logit for d, logit in found.items() if d in chosen[query]} for query, found in strong.items()}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table."""
    lines = [
        "| set | keep | nDCG@10 first stage | both | strong model | top-10 overlap | strong's tokens | FLOPs of both |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        scores = [f"{row['ndcg'][name]:.4f}" for name in ("first", "both", "strong")]
        overlap = row["top10_overlap"]
        cells = [row["set"], str(row["keep"]), *scores, "" if overlap is None else f"{overlap:.4f}"]
        lines.append("| " + " | ".join([*cells, *(f"{row[share]:.1%}" for share in ("tokens", "flops"))]) + " |")
    return "\n".join(lines)


def _row(tasks: Sequence[Task], first: Stage, strong: Stage, keep: int) -> dict[str, Any]:
    """Return the measures of a set's tasks."""
    runs = {task.name: both(first.runs[task.name], strong.runs[task.name], keep) for task in tasks}
    known = {"first": first.runs, "both": runs, "strong": strong.runs}
    best = [
        len(set(kept(runs[task.name][query], TOP)) & set(kept(found, TOP))) / TOP
        for task in tasks
        for query, found in strong.runs[task.name].items()
        if len(found) > TOP
    ]
    everything = _lengths(strong, strong.runs, tasks)
    read = _lengths(strong, runs, tasks)
    # The first stage is skipped where there are not more candidates than are kept.
    asked = {t.name: {q: d for q, d in first.runs[t.name].items() if len(d) > keep} for t in tasks}
    spent = _flops(first.cost, _lengths(first, asked, tasks)) + _flops(strong.cost, read)
    return {
        "ndcg": {name: float(np.mean([ndcg(task, of[task.name]) for task in tasks])) for name, of in known.items()},
        "top10_overlap": float(np.mean(best)) if best else None,
        "tokens": sum(read) / sum(everything),
        "flops": spent / _flops(strong.cost, everything),
    }


def _lengths(stage: Stage, runs: Mapping[str, Run], tasks: Sequence[Task]) -> list[int]:
    """Return the tokens of each pair of runs."""
    return [stage.tokens[t.name][q][d] for t in tasks for q, found in runs[t.name].items() for d in found]


def _flops(cost: Cost, lengths: Sequence[int]) -> int:
    """Return the multiplications and additions that pairs need without padding."""
    batches = [(count, length) for length, count in Counter(lengths).items()]
    return sum(each.flops for each in operations(cost, batches, itemsize=4, first_token_only=True))
