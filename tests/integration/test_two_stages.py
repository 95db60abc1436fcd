"""A first stage and a threshold where users meet them: on the command line, and through the options of an adapter."""

import json
from pathlib import Path

import bounds
import pytest
from commands import Result, run_here
from langchain_core.documents import Document

from mlx_rerank import Reranker
from mlx_rerank.integrations.langchain import MLXRerank

QUERY = "What do giant pandas eat?"
TEXTS = [
    "Paris has been the capital of France since the Middle Ages.",
    "大熊猫几乎只吃竹子。",
    "A panda is a bear.",
    "The giant panda eats almost nothing but bamboo.",
    "It rains.",
]


def rank(*options: str, code: int = 0) -> Result:
    return run_here("rank", QUERY, "-", *options, stdin="\n".join(TEXTS), code=code)


def rows(output: str) -> list[tuple[int, float]]:
    return [(row["index"], row["score"]) for row in map(json.loads, output.splitlines())]


@pytest.fixture(scope="module")
def cascade(mini_directory: Path, mini: Reranker) -> Reranker:
    return Reranker(mini_directory, first_stage=mini, keep=2)


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_the_command_line(mini_directory: Path, cascade: Reranker) -> None:
    found = rows(rank("--model", str(mini_directory), "--first-stage", "mini", "--keep", "2").stdout)
    expected = cascade.rank(QUERY, TEXTS)
    assert found == bounds.ranking([(result.index, result.score) for result in expected])
    verbose = rank("--first-stage", "mini", "--keep", "2", "-v").stderr
    alone = rank("-v").stderr
    assert _tokens(verbose) > _tokens(alone)  # those of both models


def _tokens(said: str) -> int:
    return int(said.split(" tokens")[0].split()[-1])


def test_a_threshold_on_the_command_line(mini: Reranker) -> None:
    everything = mini.rank(QUERY, TEXTS, raw_scores=True)
    least = everything[2].score - 1e-3
    found = rows(rank("--threshold", str(least), "--raw").stdout)
    assert [index for index, _ in found] == [result.index for result in everything[:3]]
    assert rank("--threshold", "1").stdout == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep", "2"], "keep=2 needs a first stage"),
        (["--first-stage", "mini", "--keep", "2", "--top-n", "3"], "top_n 3 is more than the 2 documents"),
        (["--first-stage", "nothing"], "'nothing' is not a directory"),
        (["--first-stage", "mini", "--reference"], "--first-stage is about MLX"),
        (["--keep", "2", "--reference"], "--keep is about MLX"),
        (["--threshold", "0", "--reference"], "--threshold is about MLX"),
        (["--threshold", "5"], "threshold 5.0 is not in 0..1"),
        (["--threshold", "nan", "--raw"], "threshold must be a finite number"),
    ],
)
def test_errors_are_one_line(options: list[str], message: str) -> None:
    result = rank(*options, code=1)
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_an_adapters_options(mini_directory: Path, cascade: Reranker) -> None:
    options = {"first_stage": "mini", "keep": 2}
    documents = [Document(text, id=str(i)) for i, text in enumerate(TEXTS)]
    found = MLXRerank(model=str(mini_directory), options=options).compress_documents(documents, QUERY)
    expected = cascade.rank(QUERY, TEXTS)
    assert [document.id for document in found] == [str(result.index) for result in expected]
    scores = [document.metadata["relevance_score"] for document in found]
    assert scores == [bounds.near(result.score) for result in expected]
