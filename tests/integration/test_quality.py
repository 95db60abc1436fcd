"""benchmarks/quality.py on small sets: what it reads, what it measures, and that it goes on where it stopped."""

import gc
import importlib
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import TINY, random_tensors, tiny_tokenizer, write_checkpoint

from mlx_rerank import Reranker

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DOCUMENTS = {
    "d1": "the panda is a bear", "d2": "rain falls on the plain", "d3": "bamboo is what the panda eats",
    "d4": "a bear in the zoo", "d5": "the moon is far", "d6": "trains run on rails",
}  # fmt: skip
QUERIES = {"q1": "what is the panda", "q2": "the bear in the zoo", "q3": "how far is the moon"}
RELEVANT = {"q1": {"d1": 2, "d3": 1}, "q2": {"d4": 1}, "q3": {"d5": 1, "d6": 0}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one set in the BEIR layout, and one in two languages with candidates given."""
    root = tmp_path_factory.mktemp("data")
    for directory in (root / "own", root / "cross" / "de", root / "cross" / "en"):
        directory.mkdir(parents=True)
        for name, texts in (("corpus", DOCUMENTS), ("queries", QUERIES)):
            rows = [json.dumps({"_id": key, "text": text, "lang": "en"}) for key, text in texts.items()]
            (directory / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        judged = [f"{query}\t{d}\t{grade}" for query, grades in RELEVANT.items() for d, grade in grades.items()]
        (directory / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")
    candidates = [f"{query}\t{document}" for query in QUERIES for document in DOCUMENTS]
    (root / "cross" / "cross_candidates20.tsv").write_text("\n".join(["query-id\tcorpus-id", *candidates]) + "\n")
    return root


Run = Callable[..., tuple[dict, str]]


def words_of(model: Path, data: Path, work: Path, arguments: tuple[str, ...]) -> list[str]:
    words = [str(BENCHMARKS / "quality.py"), str(model), str(data), "--sets", "own", "cross"]
    return [*words, "--work", str(work / "work"), "--out", str(work / "out.json"), "--max-length", "60", *arguments]


def run(model: Path, data: Path, work: Path, *arguments: str) -> tuple[dict, str]:
    command = [sys.executable, *words_of(model, data, work, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads((work / "out.json").read_text()), done.stdout


class HerePool:
    """A pool whose jobs are done in this process, one after the other."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> "HerePool":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def imap_unordered(self, job: Callable[[str], Any], each: list[str]) -> Any:
        for one in each:
            gc.collect()  # so that what the last job left is not freed while the next one measures memory
            yield job(one)


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The same without processes, each of which would import torch for a second's work."""
    monkeypatch.syspath_prepend(BENCHMARKS)  # as Python does for a script
    quality = importlib.import_module("quality")
    monkeypatch.setattr(quality, "get_context", lambda kind: type("Context", (), {"Pool": HerePool}))
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # which it sets where they are not
        monkeypatch.setenv(name, "1")

    def run(model: Path, data: Path, work: Path, *arguments: str) -> tuple[dict, str]:
        monkeypatch.setattr(sys, "argv", words_of(model, data, work, arguments))
        quality.main()
        return json.loads((work / "out.json").read_text()), capsys.readouterr().out

    return run


def ndcg(run: dict[str, dict[str, float]]) -> float:
    """Return nDCG@10 worked out by its definition, with linear gains as trec_eval has them."""
    found = []
    for query, grades in RELEVANT.items():
        ranking = sorted(run[query], key=lambda document: -run[query][document])
        best = sorted(grades.values(), reverse=True)
        gain, ideal = (
            sum(value / math.log2(i + 2) for i, value in enumerate(values))
            for values in ([grades.get(document, 0) for document in ranking[:10]], best)
        )
        found.append(gain / ideal)
    return sum(found) / len(found)


def test_a_small_run(run_here: Run, data: Path, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", tokenizer=tiny_tokenizer())
    variants = ["--variants", "reference", "float32", "8-bit", "2-bit"]
    result, table = run_here(model, data, tmp_path, *variants)
    assert list(result["rows"]) == ["BM25", *variants[1:]]
    assert result["rows"]["BM25"]["ndcg"]["own"] > 0.9  # the words are those of the answers
    assert result["rows"]["BM25"]["ndcg"]["cross cross-lingual"] > 0.9  # here both languages have the same words

    assert str(tmp_path) not in json.dumps(result)
    assert "python benchmarks/quality.py MODEL DATA --sets own cross" in result["command"]

    assert result["sets"]["cross cross-lingual"] == {"queries": 6, "pairs": 36}

    single, two = result["rows"]["float32"], result["rows"]["2-bit"]
    assert single["fidelity"]["max_logit"] < 1e-4
    assert single["fidelity"]["tau"] == pytest.approx(1)
    assert single["ndcg"] == pytest.approx(result["rows"]["reference"]["ndcg"])
    assert two["fidelity"]["max_logit"] > 0.1
    assert two["bytes"] < result["rows"]["8-bit"]["bytes"] < single["bytes"]
    assert abs(two["resident_bytes"] - two["bytes"]) < 8192  # but for the file's header
    assert two["scored_in_this_run"] == single["scored_in_this_run"] > 36  # two languages of 18, and what BM25 finds

    kept = next((tmp_path / "work" / "model" / "logits" / "2-bit").glob("cross-de-en*"))
    lines = kept.read_text().splitlines()
    logits = {row["query"]: row["logits"] for row in map(json.loads, lines)}
    assert {query: set(found) for query, found in logits.items()} == {query: set(DOCUMENTS) for query in QUERIES}
    assert two["ndcg"]["cross de-en"] == pytest.approx(ndcg(logits), abs=1e-6)
    assert table.count("\n") == 2 + len(result["rows"])
    assert "| 8-bit |" in table

    kept.write_text(kept.read_text()[:-20])  # as if the process had been killed while it wrote
    again, _ = run_here(model, data, tmp_path, *variants)
    assert again["rows"]["8-bit"]["scored_in_this_run"] == 0
    assert again["rows"]["2-bit"]["scored_in_this_run"] == len(DOCUMENTS)
    assert again["rows"]["2-bit"]["ndcg"] == two["ndcg"]

    other = write_checkpoint(tmp_path / "other", tokenizer=tiny_tokenizer())
    assert run_here(other, data, tmp_path, "--variants", "8-bit")[0]["rows"]["8-bit"]["scored_in_this_run"] > 36


def test_a_first_stage(data: Path, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", tokenizer=tiny_tokenizer())
    first = write_checkpoint(tmp_path / "first", tensors=random_tensors(TINY, seed=1), tokenizer=tiny_tokenizer())
    options = ["--variants", "float32", "--cascade", str(first), "--keep", "1", "2", "6"]
    result, tables = run(model, data, tmp_path, *options)
    assert "--cascade FIRST --keep 1 2 6" in result["command"]
    assert str(tmp_path) not in json.dumps(result)
    rows = {(row["set"], row["keep"]): row for row in result["cascade"]["rows"]}
    assert len(rows) == 6
    assert tables.count("| cross cross-lingual |") == 3

    cascade = Reranker(model, first_stage=first, keep=2, max_length=60)
    texts = list(DOCUMENTS.values())
    names = {text: name for name, text in DOCUMENTS.items()}
    rankings = {query: cascade.rank(text, texts, raw_scores=True) for query, text in QUERIES.items()}
    expected = ndcg({q: {names[str(found.document)]: found.score for found in each} for q, each in rankings.items()})
    two, everything = rows["cross cross-lingual", 2], rows["cross cross-lingual", 6]
    assert two["ndcg"]["both"] == pytest.approx(expected, abs=1e-6)
    assert two["ndcg"]["first"] != two["ndcg"]["strong"]
    assert everything["ndcg"]["both"] == everything["ndcg"]["strong"]
    assert everything["ndcg"]["strong"] == result["rows"]["float32"]["ndcg"]["cross cross-lingual"]
    assert everything["tokens"] == everything["flops"] == 1  # the first stage is skipped
    assert two["top10_overlap"] is None  # of six documents all are among the ten best

    strong, fast = cascade.engines
    assert two["tokens"] == pytest.approx(strong.tokens / fast.tokens)
    assert two["flops"] == pytest.approx(1 + two["tokens"], abs=0.02)  # a first stage of the same shape
