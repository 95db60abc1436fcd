"""Training data: queries, documents, and what is known of them, in the formats of the field."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rerank.errors import InputError
from mlx_rerank.pairs.arguments import require_unicode
from mlx_rerank.pairs.decoding import read_text
from mlx_rerank.pairs.files import read_rows
from mlx_rerank.pairs.rows import form_of

_QUERY = ("query", "anchor", "question", "sentence1")
_DOCUMENT = ("document", "passage", "positive", "answer", "text", "sentence2")
_LISTS = ("documents", "docs", "passages", "texts")
_LABEL = ("label", "labels", "score", "scores", "target")
_NAMES = (*_QUERY, *_DOCUMENT, *_LISTS, *_LABEL, "pos", "neg", "negative")
_FORMATS = (
    'a line is {"query", "pos": [...], "neg": [...]}, a triple {"anchor", "positive", "negative"}, a labelled pair '
    '{"query", "document", "label"}, or {"query", "documents": [...], "labels": [...]}'
)


@dataclass(frozen=True)
class Example:
    """A query and documents for it.

    Args:
        query: what is asked.
        documents: at least one.
        labels: of each document, its relevance, 0 to 1.
        teacher: of each document, the score of a teacher; None where there is none.
    """

    query: str
    documents: tuple[str, ...]
    labels: tuple[float, ...]
    teacher: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Raise InputError where something is not what it should be."""
        for text in (self.query, *self.documents):
            if not isinstance(text, str):
                raise InputError(f"a query or document is a {type(text).__name__}, not a text")
            require_unicode(text)
        if not self.documents:
            raise InputError("there are no documents")
        if len(self.labels) != len(self.documents):
            raise InputError(f"{len(self.documents)} documents have {len(self.labels)} labels")
        if self.teacher is not None and len(self.teacher) != len(self.documents):
            raise InputError(f"{len(self.documents)} documents have {len(self.teacher)} scores of a teacher")
        if not all(0 <= label <= 1 for label in self.labels):
            raise InputError(f"labels go from 0 to 1: {self.labels}")

    @property
    def positives(self) -> list[int]:
        """Places of the documents with the highest label, if that is above a half."""
        best = max(self.labels)
        return [i for i, label in enumerate(self.labels) if label == best and best > 0.5]


def read_examples(path: str | Path) -> list[Example]:
    """Read training data from JSON lines, a JSON array, or CSV or TSV with a headline.

    A line is one of FlagEmbedding's ``{"query", "pos", "neg"}`` (with ``pos_scores`` and ``neg_scores`` of a teacher,
    if there are some), sentence-transformers' triples ``{"anchor", "positive", "negative"}`` (more negatives as
    ``negative_1`` and so on; the margin of a teacher as ``label``), its labelled pairs ``{"query", "document",
    "label"}`` with labels of 0 to 1, or its lists ``{"query", "documents", "labels"}``. Labelled pairs of one query
    are brought together.

    Raises:
        InputError: the file cannot be read, or a line is none of these; it names the line.
    """
    name, pairs, examples = str(path), {}, []
    for where, row in _rows(name):
        try:
            example = _example(row)
        except (InputError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{where}: {error}") from error
        if len(example.documents) == 1 and not _has(row, ("pos",)):
            pairs.setdefault(example.query, []).append(example)
        else:
            examples.append(example)
    examples += [_joined(query, of_query) for query, of_query in pairs.items()]
    if not examples:
        raise InputError(f"{name} holds no training data: {_FORMATS}")
    return examples


def _rows(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (file and line, row)."""
    text = read_text(path)
    form = form_of(path, text, _NAMES)
    rows = [] if not text.strip() else read_rows(path, text, "json" if form == "lines" else form, _NAMES)
    for row in rows:
        if not isinstance(row.value, dict):
            raise InputError(f"{row.where} is a JSON {type(row.value).__name__}: {_FORMATS}")
        yield row.where, row.value


def _example(row: Mapping[str, Any]) -> Example:
    """Return what a row says, whichever format it has."""
    query = _text(row, _QUERY)
    if _has(row, ("pos",)):
        return _with_lists(query, row)
    if _has(row, ("negative", "negative_1")):
        return _triple(query, row)
    lists = _has(row, _LISTS)
    label = _has(row, _LABEL)
    if label is None:
        raise InputError(f"there is no label among {sorted(row)}: {_FORMATS}")
    documents = row[lists] if lists else [_text(row, _DOCUMENT)]
    return Example(query, _texts(documents), _numbers(row[label]) if lists else (float(row[label]),))


def _with_lists(query: str, row: Mapping[str, Any]) -> Example:
    """Read FlagEmbedding's format."""
    positives, negatives = _texts(row["pos"]), _texts(row.get("neg") or ())
    scored = row.get("pos_scores") is not None and (not negatives or row.get("neg_scores") is not None)
    teacher = None
    if scored:
        of_positives, of_negatives = _numbers(row["pos_scores"]), _numbers(row.get("neg_scores") or ())
        if len(of_positives) != len(positives):
            raise InputError(f"{len(positives)} texts in pos have {len(of_positives)} pos_scores")
        teacher = of_positives + of_negatives
    return Example(query, positives + negatives, (1.0,) * len(positives) + (0.0,) * len(negatives), teacher)


def _triple(query: str, row: Mapping[str, Any]) -> Example:
    """Read a triple, or a tuple with more negatives; a label is the positive's margin in a teacher's scores."""
    negatives = tuple(_texts([value])[0] for key, value in row.items() if key.startswith("negative") and value)
    label, teacher = _has(row, _LABEL), None
    if label is not None:
        margins = _numbers(row[label] if isinstance(row[label], list) else [row[label]])
        teacher = (0.0, *(-margin for margin in margins))
    return Example(query, (_text(row, ("positive",)), *negatives), (1.0,) + (0.0,) * len(negatives), teacher)


def _joined(query: str, examples: Sequence[Example]) -> Example:
    """Bring the labelled pairs of one query together."""
    documents = tuple(text for example in examples for text in example.documents)
    return Example(query, documents, tuple(label for example in examples for label in example.labels))


def _has(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Return the first of some names that a row has a value for."""
    return next((name for name in names if row.get(name) is not None), None)


def _text(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the text under one of some names."""
    name = _has(row, names)
    if name is None:
        raise InputError(f"there is no {names[0]} among {sorted(row)}: {_FORMATS}")
    return _texts([row[name]])[0]


def _texts(values: Any) -> tuple[str, ...]:
    """Return a list of texts."""
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, str) for value in values):
        raise InputError(f"{str(values)[:60]!r} is not a list of texts")
    return tuple(values)


def _numbers(values: Any) -> tuple[float, ...]:
    """Return a list of finite numbers."""
    numbers = tuple(map(float, values))
    if not all(map(math.isfinite, numbers)):
        raise InputError(f"{values} are not all finite")
    return numbers
