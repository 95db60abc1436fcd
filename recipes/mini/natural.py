"""Add public question sets to the training sets: cut their contexts into passages, and mine negatives with BM25.

    python recipes/mini/natural.py DATA CLONES EVALUATION OUT

Any passage or question that equals a text of the evaluation sets, or shares a window of 30 characters with one (lower
case, white space collapsed; every window of both sides is looked at), is left out, and so is a question whose passage
is. What is translated from an evaluation text cannot be seen so; none of the sources is a translation of SQuAD.
"""

import argparse
import json
import random
import re
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from data import read_rows, write_rows
from sources import SOURCES, Pair, Source

from mlx_rerank.train.negatives import bm25

WINDOW = 30  # characters
LONGEST = 1400  # characters of a passage, about
MOST = 15_000  # questions of a source
DEPTH, NEGATIVES = 12, 8  # of BM25's ranking, and of a question
_ENDS = re.compile(r"\n+|(?<=[.!?؟])\s+|[。！？]")

Row = dict[str, Any]


class Evaluation:
    """The texts of the evaluation sets, which nothing that is trained on may overlap with."""

    def __init__(self, folder: Path) -> None:
        """Read every corpus.jsonl and queries.jsonl below a directory."""
        self._texts: set[str] = set()
        for path in chain(folder.rglob("corpus.jsonl"), folder.rglob("queries.jsonl")):
            with path.open(encoding="utf-8") as file:
                self._texts.update(_normal(json.loads(line)["text"]) for line in file)
        self._windows = {window for text in self._texts for window in _windows(text)}

    def overlaps(self, text: str) -> bool:
        """Tell whether a text equals one of the sets', or shares a window with one."""
        text = _normal(text)
        return text in self._texts or not self._windows.isdisjoint(_windows(text))


def _normal(text: str) -> str:
    """Return a text in lower case, with single spaces."""
    return " ".join(text.lower().split())


def _windows(text: str) -> Iterator[int]:
    """Yield a hash of every window: 12 million texts would take gigabytes."""
    return (hash(text[i : i + WINDOW]) for i in range(len(text) - WINDOW + 1))


def spans(context: str, start: int, stop: int) -> list[tuple[int, int]]:
    """Cut a context into spans of about LONGEST characters that end where a line or sentence does.

    Args:
        context: to cut.
        start: of the answer; no span ends within it.
        stop: of the answer.

    Returns:
        The span with the answer, and then the others.
    """
    if len(context) <= LONGEST * 1.25:
        return [(0, len(context))]
    ends = [end for end in (match.end() for match in _ENDS.finditer(context)) if not start < end < stop]
    found, begin, last = [], 0, 0
    for end in [*ends, len(context)]:
        if end - begin > LONGEST and last > begin:
            found.append((begin, last))
            begin = last
        last = end
    return sorted([*found, (begin, len(context))], key=lambda span: not span[0] <= start < span[1])


class Passages:
    """The passages of a source in one language, each once."""

    def __init__(self, name: str, lang: str, evaluation: Evaluation) -> None:
        self.name, self.lang = name, lang
        self.rows: list[Row] = []
        self.removed = 0
        self._evaluation = evaluation
        self._ids: dict[str, str | None] = {}

    def add(self, text: str) -> None:
        """Take a text over, unless it is too short or overlaps with the evaluation sets."""
        if len(text) < 20 or text in self._ids:
            return
        self._ids[text] = None if self._evaluation.overlaps(text) else f"{self.name}:d{len(self._ids)}"
        if self._ids[text]:
            self.rows.append({"_id": self._ids[text], "text": text, "lang": self.lang})
        else:
            self.removed += 1

    def id_of(self, text: str) -> str | None:
        """Return the id of a text, or None if it was not taken over."""
        return self._ids.get(text)


def convert(source: Source, clones: Path, evaluation: Evaluation) -> tuple[list[Row], list[Row]]:
    """Return the questions of a source, without negatives, and its passages."""
    name = f"{source.name}/{source.lang}"
    pairs = list({(_normal(pair.question), _normal(pair.context)): pair for pair in source.pairs(clones)}.values())
    random.Random(1).shuffle(pairs)
    passages = Passages(name, source.lang, evaluation)
    questions: list[Row] = []
    for pair in pairs[:MOST]:
        passage = _passage(pair, passages)
        if passage and not evaluation.overlaps(pair.question):
            row = {"text": pair.question.strip(), "lang": source.lang, "source": source.name, "pos": [passage]}
            questions.append({"_id": f"{name}:{len(questions)}", **row})
    print(
        f"{name}: {len(questions)} of {len(pairs)} questions, {len(passages.rows)} passages, "
        f"{passages.removed} passages removed",
        flush=True,
    )
    return questions, passages.rows


def _passage(pair: Pair, passages: Passages) -> str | None:
    """Add all of a context to the passages, and return the id of the one with the answer if it is there."""
    found = spans(pair.context, pair.start, pair.start + len(pair.answer))
    for begin, stop in found:
        passages.add(pair.context[begin:stop].strip())
    begin, stop = found[0]
    piece, answer = pair.context[begin:stop], pair.answer.rstrip()
    text = piece.strip()
    start = pair.start - begin - (len(piece) - len(piece.lstrip()))
    return passages.id_of(text) if start >= 0 and text[start : start + len(answer)] == answer else None


def with_negatives(questions: list[Row], passages: list[Row]) -> list[Row]:
    """Return the questions with BM25's best other passages, filled up with passages that a checksum chooses."""
    found = bm25([row["text"] for row in questions], [row["text"] for row in passages], DEPTH)
    ids = [row["_id"] for row in passages]
    made = []
    for question, places in zip(questions, found, strict=True):
        mined = [ids[place] for place in places if ids[place] not in question["pos"]][:NEGATIVES]
        rest = [i for i in ids if i not in question["pos"] and i not in mined]
        first = zlib.crc32(question["_id"].encode())
        lacking = min(NEGATIVES - len(mined), len(rest))
        mined += [rest[(first + k * 7919) % len(rest)] for k in range(lacking)]
        made.append({**question, "neg": list(dict.fromkeys(mined))})
    return made


def main() -> None:
    """Write OUT/train.jsonl.gz and OUT/corpus.jsonl.gz: those of DATA, and then the sources'."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory with train.jsonl.gz and corpus.jsonl.gz")
    parser.add_argument("clones", type=Path, help="directory with a clone OWNER+NAME of each repository in sources.py")
    parser.add_argument("evaluation", type=Path, help="directory with the evaluation sets, in the BEIR layout")
    parser.add_argument("out", type=Path, help="directory to write")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    evaluation = Evaluation(args.evaluation)
    questions: list[Row] = []
    corpus: list[Row] = []
    for source in SOURCES:
        asked, passages = convert(source, args.clones, evaluation)
        questions += with_negatives(asked, passages)
        corpus += passages
    for name, rows in (("train", questions), ("corpus", corpus)):
        write_rows(args.out / f"{name}.jsonl.gz", chain(read_rows(args.data / f"{name}.jsonl.gz"), rows))


if __name__ == "__main__":
    main()
