"""What callers pass, checked where it comes in: queries, documents and pairs of them."""

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from mlx_rerank.errors import InputError

Document = str | Mapping[str, Any]  # a mapping holds its text under "text"


def pairs_to_score(pairs: str | Iterable[Sequence[str]], document: str | None) -> tuple[Iterable[Sequence[str]], bool]:
    """Return pairs, and whether the caller gave a single query and document.

    Raises:
        InputError: the arguments are neither pairs nor a query and a document.
    """
    if isinstance(pairs, str) and document is not None:
        return [(pairs, document)], True
    if isinstance(pairs, str) or document is not None:
        raise InputError("score takes a list of (query, document) pairs, or a query and a document")
    return pairs, False


def document_text(document: Document, index: int) -> str:
    """Return the text of a document.

    Raises:
        InputError: it is neither a text nor a mapping whose `text` is a text.
    """
    text = document.get("text") if isinstance(document, Mapping) else document
    if not isinstance(text, str):
        raise InputError(
            f"documents[{index}] must be a text or a mapping with a text under 'text'; got {type(document).__name__} "
            f"{str(document)[:60]!r}"
        )
    return text


def pairs_to_rank(query: str, documents: Iterable[Document]) -> tuple[list[Document], list[tuple[str, str]]]:
    """Return the documents as a list, and each one's text with the query.

    Raises:
        InputError: the query is no text, the documents are no list, or one has no text.
    """
    if not isinstance(query, str):
        raise InputError(f"query must be a text, not {type(query).__name__} {str(query)[:60]!r}")
    require_sequence("documents", documents)
    kept = list(documents)
    return kept, [(query, document_text(document, i)) for i, document in enumerate(kept)]


def require_sequence(name: str, values: Any) -> None:
    """Refuse values without an order, and those that iterate over letters (a text) or column names (a table).

    Raises:
        InputError: it is not something like a list.
    """
    odd = isinstance(values, (str, bytes, Mapping, Set)) or hasattr(values, "columns")
    if odd or not isinstance(values, Iterable):
        raise InputError(f"{name} must be a list, not a {type(values).__name__}")


def check_pairs(pairs: Iterable[Sequence[str]]) -> list[tuple[str, str]]:
    """Return pairs as a list of two-text tuples.

    Raises:
        InputError: something is not a list of pairs of texts; it names the pair.
    """
    require_sequence("pairs", pairs)
    return list(checked_pairs(pairs))


def checked_pairs(pairs: Iterable[Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Yield pairs as two-text tuples, each checked when it is asked for.

    Raises:
        InputError: something is not a pair of valid texts; it names the pair.
    """
    for i, pair in enumerate(pairs):
        if isinstance(pair, (str, bytes, Mapping, Set)) or not isinstance(pair, Iterable):
            raise InputError(
                f"pairs[{i}] must be a (query, document) pair, not {type(pair).__name__} {str(pair)[:60]!r}"
            )
        texts = tuple(pair)
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise InputError(
                f"pairs[{i}] must be two texts; got {len(texts)} values of type "
                f"{', '.join(type(text).__name__ for text in texts[:4])}"
            )
        for text in texts:
            if not text.isascii():
                require_unicode(text, f"pairs[{i}]: ")
        yield texts


def iterate_pairs(pairs: Iterable[Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Return an iterator over pairs: a list is checked now, any other iterable as it is read.

    Raises:
        InputError: something is not a list of pairs of texts; it names the pair.
    """
    require_sequence("pairs", pairs)
    return iter(check_pairs(pairs)) if isinstance(pairs, (list, tuple)) else checked_pairs(pairs)


def require_unicode(text: str, where: str = "") -> None:
    """Refuse lone surrogates, which have no UTF-8 form and which the tokenizer library rejects without saying where."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise InputError(
            f"{where}character {error.start} of the text starting {text[:40]!r} is a lone surrogate ({code}): the text "
            "was decoded wrongly; replace it, for example with text.encode('utf-8', 'replace').decode()"
        ) from None


def require_whole_number(name: str, value: Any, least: int = 1) -> int:
    """Return an argument as an int.

    Raises:
        InputError: it is not a whole number, or less than `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return number
