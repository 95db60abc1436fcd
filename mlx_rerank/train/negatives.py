"""Hard negatives: documents that look relevant to a first stage, or to the model itself, but are not known to be.

Sources: BM25: Robertson and Zaragoza 2009, in bm25s (Lù 2024, arXiv 2407.03618); negatives of the model that score near
the positive are left out as likely false ones: Moreira et al. 2024, "NV-Retriever" (arXiv 2407.15831), TopK-PercPos.
"""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from mlx_rerank.device.optional import imported, require
from mlx_rerank.errors import InputError
from mlx_rerank.models.mapping import SIGMOID, ScoreMapping
from mlx_rerank.train.examples import Example

DEPTH = 50  # of BM25's ranking
MINED = 15  # negatives of a query
_OF_THE_POSITIVE = 0.95  # a negative above this share of the positive's score is probably relevant
_UNSPACED = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "HANGUL")


def require_bm25() -> None:
    """Check that the search library is there, before anything is loaded.

    Raises:
        MissingDependencyError: it is not.
    """
    require("bm25s", "train", "hard negatives need")


def mine(
    examples: Sequence[Example],
    corpus: Iterable[str],
    mapping: ScoreMapping = SIGMOID,
    score: Callable[[Sequence[Example]], list[np.ndarray]] | None = None,
) -> list[Example]:
    """Return the examples with hard negatives added to those that they have.

    Args:
        examples: to train on. Their documents belong to the corpus.
        corpus: more documents to choose from.
        mapping: of the model's logits to scores.
        score: returns the model's logits of every example's documents. With it, negatives are those of BM25's best that
            the model scores highest; without it, BM25's best themselves.

    Raises:
        InputError: there is nothing to choose from.
        MissingDependencyError: bm25s is not installed.
    """
    require_bm25()
    documents = list(dict.fromkeys([*(text for e in examples for text in e.documents), *corpus]))
    found = bm25([example.query for example in examples], documents, DEPTH)
    own: dict[str, set[str]] = {}  # a query may be on several lines, each with another positive document
    for example in examples:
        own.setdefault(example.query, set()).update(example.documents)
    fresh = [
        [documents[i] for i in places if documents[i] not in own[example.query]]
        for example, places in zip(examples, found, strict=True)
    ]
    if not any(fresh):
        raise InputError(f"among {len(documents)} documents BM25 finds no negatives: name more with a corpus")
    if score is not None:
        fresh = _liked(examples, fresh, mapping, score)
    return [_with_negatives(example, texts[:MINED]) for example, texts in zip(examples, fresh, strict=True)]


def bm25(queries: Sequence[str], documents: Sequence[str], top: int) -> list[list[int]]:
    """Return the places of every query's best documents, best first; those that share no word are not among them."""
    bm25s = imported("bm25s", "train")
    corpus = [terms(text) for text in documents]
    if not any(corpus):  # bm25s cannot index a corpus without words
        return [[] for _ in queries]
    retriever = bm25s.BM25(k1=0.9, b=0.4)
    retriever.index(corpus, show_progress=False)
    k = min(top, len(documents))
    found, scores = retriever.retrieve([terms(text) for text in queries], k=k, show_progress=False)
    return [
        [int(i) for i, s in zip(row, of_row, strict=True) if s > 0] for row, of_row in zip(found, scores, strict=True)
    ]


def terms(text: str) -> list[str]:
    """Split a text into lower-case words and, where a script has no spaces, overlapping pairs of letters."""
    words = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text.lower()).split()
    return [term for word in words for term in _split(word)]


def _split(word: str) -> list[str]:
    """Return a word or, if a part of it is in a script without spaces, that part's overlapping pairs of letters."""
    if word.isascii():
        return [word]
    found = []
    for unspaced, letters in groupby(word, lambda c: unicodedata.name(c, "").startswith(_UNSPACED)):
        part = "".join(letters)
        found += [part[i : i + 2] for i in range(max(1, len(part) - 1))] if unspaced else [part]
    return found


def _liked(
    examples: Sequence[Example],
    fresh: Sequence[list[str]],
    mapping: ScoreMapping,
    score: Callable[[Sequence[Example]], list[np.ndarray]],
) -> list[list[str]]:
    """Order negatives by the model's scores, without those that it scores about as high as the positive."""
    positives = [example.documents[example.positives[0]] if example.positives else None for example in examples]
    asked = [
        Example(example.query, (positive or texts[0], *texts), (0.0,) * (1 + len(texts)))
        for example, positive, texts in zip(examples, positives, fresh, strict=True)
        if texts
    ]
    scores = iter(score(asked))
    ordered = []
    for positive, texts in zip(positives, fresh, strict=True):
        if not texts:
            ordered.append([])
            continue
        values = mapping(next(scores))
        bound = np.inf if positive is None else _OF_THE_POSITIVE * values[0]
        places = np.argsort(-values[1:], kind="stable")
        ordered.append([texts[i] for i in places if values[1 + i] < bound])
    return ordered


def _with_negatives(example: Example, texts: Sequence[str]) -> Example:
    """Add documents that are not relevant. A teacher has not scored them, so its scores no longer count."""
    if not texts:
        return example
    labels = example.labels + (0.0,) * len(texts)
    return replace(example, documents=(*example.documents, *texts), labels=labels, teacher=None)
