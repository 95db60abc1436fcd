"""The corpus of the examples, and how much a ranking of it is worth."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ir_measures
from ir_measures import nDCG

CORPUS = Path(__file__).parent / "corpus"
Rankings = Mapping[str, Sequence[str]]  # ids of passages, the best first, for the id of each question


def load(questions: int | None = None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the passages, and the first so many questions; all if None."""
    passages, asked = (
        [json.loads(line) for line in (CORPUS / name).read_text(encoding="utf-8").splitlines()]
        for name in ("passages.jsonl", "questions.jsonl")
    )
    return passages, asked[:questions]


def print_gain(first_stage: Rankings, reranked: Rankings, questions: Sequence[Mapping[str, Any]]) -> None:
    """Print nDCG@10 of the first stage, of what reranking has made of it, and the difference."""
    qrels = [ir_measures.Qrel(q["id"], passage, 1) for q in questions for passage in q["relevant"]]
    before, after = (
        ir_measures.calc_aggregate([nDCG @ 10], qrels, _run(rankings))[nDCG @ 10]
        for rankings in (first_stage, reranked)
    )
    print(f"{len(questions)} questions, nDCG@10")
    print(f"first stage  {before:.4f}")
    print(f"reranked     {after:.4f}")
    print(f"gain        {after - before:+.4f}")


def _run(rankings: Rankings) -> list[ir_measures.ScoredDoc]:
    """Return rankings as measures take them: with scores that fall from place to place."""
    return [
        ir_measures.ScoredDoc(question, passage, 1 / (place + 1))
        for question, passages in rankings.items()
        for place, passage in enumerate(passages)
    ]
