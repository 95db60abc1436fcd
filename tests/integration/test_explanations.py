"""Explanations of the embedded model's scores, on questions with known answers."""

import json
from pathlib import Path

import pytest
from explanations import explained

from mlx_rerank import Reranker

CORPUS = Path(__file__).parents[2] / "examples" / "corpus"


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("572940973f37b319004781a5", ["IPCC"]),
        ("56f8094aa6d7ea1400e17391", ["Italy", "Luther's"]),  # the question has both
        ("572968cf1d046914007793cc", ["Chloroplasts"]),
    ],
)
def test_the_words_that_carry_a_score(mini: Reranker, question: str, words: list[str]) -> None:
    lines = {name: (CORPUS / f"{name}.jsonl").read_text("utf-8").splitlines() for name in ("questions", "passages")}
    questions, passages = ({row["id"]: row for row in map(json.loads, lines[name])} for name in lines)
    asked = questions[question]
    ids = list(passages)
    answer = ids.index(asked["relevant"][0])
    document = " ".join(passages[ids[i]]["text"] for i in (answer - 1, answer))
    found = explained(mini, asked["text"], document)
    [strongest] = found.top(1)
    assert found.document[strongest.start : strongest.end] in words
    assert strongest.weight > 1
    assert max(h.weight for h in found.query_highlights) > 0.3
