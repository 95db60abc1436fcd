"""Retrieval test sets in the BEIR layout, their first stage, and the measures of a ranking.

A set is a directory with corpus.jsonl, queries.jsonl and qrels.tsv, as https://github.com/beir-cellar/beir publishes
them (there, qrels/test.tsv).
"""

import csv
import gzip
import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlx_rerank.train.negatives import terms

Run = Mapping[str, Mapping[str, float]]  # query id -> document id -> score
UNSPACED = ("zh", "ja", "th", "ko")  # written without spaces, so that BM25 takes pairs of letters for words


@dataclass(frozen=True)
class Task:
    """Queries with the documents to rerank for each.

    Args:
        name: of the set, and the languages where it has several.
        group: of the set alone, over which results are averaged.
        queries: texts by id.
        documents: texts by id, at least all candidates.
        first_stage: the candidates of each query, with the score that found them.
        qrels: judged relevance of documents, by query.
        language: of queries and documents alike; None across languages.
    """

    name: str
    group: str
    queries: dict[str, str]
    documents: dict[str, str]
    first_stage: dict[str, dict[str, float]]
    qrels: dict[str, dict[str, int]]
    language: str | None


def read_task(directory: Path, name: str, group: str, queries: int, depth: int) -> Task:
    """Read a set in one language, its first stage from bm25_top100.trec.gz or computed.

    Args:
        directory: in the BEIR layout.
        name: of the task.
        group: of the set.
        queries: how many to take, the first of sample500.txt where there is one; all if 0.
        depth: candidates for each.
    """
    texts, rows = _texts(directory / "queries.jsonl"), _rows(directory / "corpus.jsonl")
    documents = {row["_id"]: " ".join(filter(None, (row.get("title"), row["text"]))) for row in rows}
    qrels = _qrels(directory)
    chosen = _sample(directory, [query for query in texts if query in qrels], queries)
    run = directory / "bm25_top100.trec.gz"
    language = rows[0].get("lang", "en")
    found = _read_run(run) if run.is_file() else bm25({q: texts[q] for q in chosen}, documents, language)
    first_stage = {query: dict(list(found[query].items())[:depth]) for query in chosen if found.get(query)}
    judged = {query: qrels[query] for query in chosen}
    return Task(name, group, {query: texts[query] for query in chosen}, documents, first_stage, judged, language)


def read_cross_lingual(directory: Path, asked: str, told: str, queries: int) -> Task:
    """Read XQuAD with queries in one language and documents in another, candidates from cross_candidates20.tsv."""
    texts = _texts(directory / asked / "queries.jsonl")
    qrels = _qrels(directory / asked)
    candidates: dict[str, dict[str, float]] = {}
    with (directory / "cross_candidates20.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            candidates.setdefault(row["query-id"], {})[row["corpus-id"]] = 0.0
    chosen = _sample(directory / asked, list(texts), queries)
    return Task(
        name=f"{directory.name} {asked}-{told}",
        group=f"{directory.name} cross-lingual",
        queries={query: texts[query] for query in chosen},
        documents=_texts(directory / told / "corpus.jsonl"),
        first_stage={query: candidates[query] for query in chosen},
        qrels={query: qrels[query] for query in chosen},
        language=None,
    )


def read_tasks(data: Path, names: Iterable[str], queries: Mapping[str, int], depth: Mapping[str, int]) -> list[Task]:
    """Read sets by name: a directory in the BEIR layout, one of such directories a language, or xquad.

    Args:
        data: the directory that holds them.
        names: of the sets.
        queries: how many of each set, or of each language; all if 0 or not said.
        depth: candidates a query; 100 if not said.
    """
    tasks = []
    for name in names:
        count, candidates = queries.get(name, 0), depth.get(name, 100)
        if (data / name / "cross_candidates20.tsv").is_file():
            languages = sorted(path.name for path in (data / name).iterdir() if path.is_dir())
            ring = zip(languages, [*languages[1:], languages[0]], strict=True)  # each language asks once, and answers
            tasks += [read_cross_lingual(data / name, asked, told, count) for asked, told in ring]
        elif (data / name / "corpus.jsonl").is_file():
            tasks.append(read_task(data / name, name, name, count, candidates))
        else:
            for path in sorted(path for path in (data / name).iterdir() if path.is_dir()):
                tasks.append(read_task(path, f"{name} {path.name}", name, count, candidates))
    return tasks


def counts(tasks: Iterable[Task]) -> dict[str, dict[str, int]]:
    """Return how many queries and pairs each set has."""
    found: dict[str, dict[str, int]] = {}
    for task in tasks:
        of_group = found.setdefault(task.group, {"queries": 0, "pairs": 0})
        of_group["queries"] += len(task.queries)
        of_group["pairs"] += sum(map(len, task.first_stage.values()))
    return found


def bm25(queries: Mapping[str, str], documents: Mapping[str, str], language: str | None, top: int = 100) -> Run:
    """Rank documents by BM25 (bm25s, k1 0.9, b 0.4, no stemming or stop words).

    Args:
        queries: texts by id.
        documents: texts by id.
        language: of all of them; if None, each word is taken as its script is.
        top: documents for each query.
    """
    import bm25s

    def tokens(texts: Iterable[str]) -> list[list[str]]:
        if language is None:
            return [terms(text) for text in texts]
        return [_bigrams(text) if language in UNSPACED else _words(text) for text in texts]

    names = list(documents)
    retriever = bm25s.BM25(k1=0.9, b=0.4)
    retriever.index(tokens(documents.values()), show_progress=False)
    k = min(top, len(names))
    found, scores = retriever.retrieve(tokens(queries.values()), k=k, show_progress=False)
    return {
        query: {names[int(i)]: float(s) for i, s in zip(row, values, strict=True) if s > 0}
        for query, row, values in zip(queries, found, scores, strict=True)
    }


def ndcg(task: Task, run: Run) -> float:
    """Return nDCG@10 of a run, averaged over the task's queries; one without results counts 0."""
    import ir_measures
    from ir_measures import nDCG

    return float(ir_measures.calc_aggregate([nDCG @ 10], task.qrels, run)[nDCG @ 10])


def _words(text: str) -> list[str]:
    """Split a text into lower-case words: runs of letters, digits and the marks that belong to them."""
    return "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text.lower()).split()


def _bigrams(text: str) -> list[str]:
    """Split a text without spaces into overlapping pairs of letters."""
    return [word[i : i + 2] for word in _words(text) for i in range(max(1, len(word) - 1))]


def _rows(path: Path) -> list[dict]:
    """Read JSON lines."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _texts(path: Path) -> dict[str, str]:
    """Read texts by id."""
    return {row["_id"]: row["text"] for row in _rows(path)}


def _qrels(directory: Path) -> dict[str, dict[str, int]]:
    """Read judgments by query, of which there is at least one that is relevant."""
    path = next(p for p in (directory / "qrels.tsv", directory / "qrels" / "test.tsv") if p.is_file())
    qrels: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    return {query: judged for query, judged in qrels.items() if any(grade > 0 for grade in judged.values())}


def _sample(directory: Path, ids: list[str], count: int) -> list[str]:
    """Return the first ids of sample500.txt, or ids at even steps; all for a count of 0."""
    if not count or count >= len(ids):
        return ids
    sample = directory / "sample500.txt"
    if sample.is_file():
        known = set(ids)
        return [line for line in sample.read_text(encoding="utf-8").split() if line in known][:count]
    return [ids[i * len(ids) // count] for i in range(count)]


def _read_run(path: Path) -> Run:
    """Read a run in TREC's format, the best documents first."""
    run: dict[str, dict[str, float]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            query, _, document, _, score, _ = line.split()
            run.setdefault(query, {})[document] = float(score)
    return run
