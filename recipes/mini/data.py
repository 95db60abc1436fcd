"""The training sets: questions with relevant and mined passages, aligned help paragraphs, and how texts are cut."""

import collections
import gzip
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HELP = "lohelp"  # source whose passages are sections of LibreOffice's help, with ids that are parallel across languages
SHARD = 1000  # groups of a file
Group = dict[str, Any]  # a query, its texts, and what else targets.py and train_mini.py agree on
Page = list[tuple[str, dict[str, str]]]  # ("h" or "p", the text in each language) of every paragraph
_DENSE = ("ja", "zh", "ko", "th")  # scripts with few characters a word
_ENDS = re.compile(r"(?<=[.!?؟۔።])\s+(?=\S)|(?<=[。！？])|\n+")
_LONGEST_QUESTION = 250  # characters
_LETTERS = 6  # of a word that count
_LEAST_NEGATIVES = 5


class Question(NamedTuple):
    """A question and the ids of passages.

    Args:
        id: unique among all sources.
        text: what is asked.
        lang: of the text.
        source: the set that it comes from.
        pos: passages that answer it.
        neg: passages that share words with it and are not known to answer it.
    """

    id: str
    text: str
    lang: str
    source: str
    pos: list[str]
    neg: list[str]


class TrainingSets:
    """Everything that groups are made of, without the questions that are held out.

    Attributes:
        corpus: texts of passages by id.
        natural: questions that people asked, by "source/language".
        help: headings and index keywords of the help, as questions.
        by_lang: of each language, a relevant passage of every natural question.
        sections: of each page of the help, the ids of its sections.
        pages: aligned paragraphs of the help; none without a file of them.
    """

    def __init__(self, folder: Path, parallel: Path | None = None) -> None:
        """Read train.jsonl.gz and corpus.jsonl.gz.

        Args:
            folder: that holds the two.
            parallel: written by parallel.py.
        """
        self.pages: list[Page] = list(read_rows(parallel)) if parallel else []
        passages = list(read_rows(folder / "corpus.jsonl.gz"))
        self.corpus: dict[str, str] = {row["_id"]: row["text"] for row in passages}
        self.natural: dict[str, list[Question]] = collections.defaultdict(list)
        self.help: list[Question] = []
        for question in _questions(folder / "train.jsonl.gz"):
            of_source = self.natural[f"{question.source}/{question.lang}"] if question.source != HELP else self.help
            of_source.append(question)
        self.by_lang: dict[str, list[str]] = collections.defaultdict(list)
        for name in sorted(self.natural):
            self.by_lang[name.split("/")[1]] += [question.pos[0] for question in self.natural[name]]
        self.help_langs = sorted({question.lang for question in self.help})
        self.sections: dict[str, list[str]] = collections.defaultdict(list)
        for identifier in self.corpus:
            if identifier.startswith(HELP + "/"):
                self.sections[identifier.split("#")[0]].append(identifier)
        self._count_terms(passages)

    def _count_terms(self, passages: list[dict[str, Any]]) -> None:
        """Count in how many passages each term occurs, of every fourth one."""
        self._frequency: collections.Counter[str] = collections.Counter()
        for row in passages[::4]:
            self._frequency.update(terms(row["text"], row["lang"]))
        self._counted = len(passages) // 4

    def frequency(self, word: str) -> int:
        """Return in how many of the counted passages a word, or one that begins like it, occurs."""
        return self._frequency[word.lower()[:_LETTERS]]

    def overlap(self, query: str, text: str, lang: str) -> float:
        """Return how much of a query occurs in a text: rare terms count more, and long texts less."""
        shared = terms(query, lang) & terms(text, lang)
        weights = (math.log(1 + self._counted / (1 + self._frequency[term])) for term in shared)
        return sum(weights) / (8 + math.log(8 + len(text)))


def read_rows(path: Path) -> Iterator[Any]:
    """Yield what the lines of a gzipped JSONL file hold."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    """Write gzipped JSONL. The file is there when all of it is."""
    part = path.with_suffix(".part")
    with gzip.open(part, "wt", encoding="utf-8", compresslevel=4) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    part.rename(path)


def write_groups(folder: Path, groups: Sequence[Group]) -> None:
    """Write groups to the files that a training run reads in order, in a directory that is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(groups), SHARD):
        write_rows(folder / f"groups-{start // SHARD:03}.jsonl.gz", groups[start : start + SHARD])


def held_out(identifier: str) -> bool:
    """Tell whether a question is kept from training, as one in fifty is."""
    return zlib.crc32(identifier.encode()) % 50 == 0


def sentences(text: str, lang: str) -> list[str]:
    """Cut a text into pieces of a sentence's length.

    Thai has no full stop and is cut at spaces. Pieces that follow a short one are joined to it, and long ones are cut.
    """
    dense = lang[:2] in _DENSE
    parts = re.split(r"\s+", text) if lang == "th" else _ENDS.split(text)
    least, most = (60 if lang == "th" else 12 if dense else 25), (160 if dense else 400)
    joined: list[str] = []
    for part in filter(None, (part.strip() for part in parts)):
        if joined and len(joined[-1]) < least:
            joined[-1] += ("" if dense and lang != "th" else " ") + part
        else:
            joined.append(part)
    return [sentence[:most] for sentence in joined if len(sentence) >= 8]


def _questions(path: Path) -> Iterator[Question]:
    """Yield the questions to train on."""
    for row in read_rows(path):
        if not held_out(row["_id"]) and len(row["neg"]) >= _LEAST_NEGATIVES:
            text = row["text"][:_LONGEST_QUESTION]
            yield Question(row["_id"], text, row["lang"], row["source"], row["pos"], row["neg"])


def terms(text: str, lang: str) -> set[str]:
    """Return the beginnings of a text's words, or its pairs of characters where a word has few."""
    text = text.lower()
    if lang[:2] in _DENSE:
        return {text[i : i + 2] for i in range(len(text) - 1)}
    return {word[:_LETTERS] for word in re.findall(r"\w+", text)}
