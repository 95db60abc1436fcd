"""What of a request is read: the texts of its documents, within which bounds, and how many of their tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlx_rerank.errors import InputError, RefusedError
from mlx_rerank.pairs.encoded import EncodedPairs
from mlx_rerank.pairs.encoder import weight
from mlx_rerank.pairs.limits import Limits, parse_long_documents
from mlx_rerank.pairs.windows import Windows
from mlx_rerank.scoring.reranker import Reranker
from mlx_rerank.server.schema import Request, RerankRequest
from mlx_rerank.server.tokenising import weights


@dataclass(frozen=True)
class Bounds:
    """What a server takes on.

    Args:
        documents: most of a request; bodies.py counts them.
        document_characters: most of a text, written out as the tokenizer does.
        characters: most of all texts of a request, likewise.
        queue: most pairs that wait or are computed, for each model; a request that is alone may have more.
        timeout: seconds that a request may take.
    """

    documents: int = 1000
    document_characters: int = 200_000
    characters: int = 8 * 10**6
    queue: int = 4096
    timeout: float = 60.0


def check(bounds: Bounds, pairs: Sequence[tuple[str, str]], fields: tuple[str, str]) -> None:
    """Refuse an empty request, and texts that are too long.

    Args:
        bounds: what a request may have.
        pairs: its texts.
        fields: how the client calls the two sides of a pair.

    Raises:
        RefusedError: there is nothing to score, or too much.
    """
    if not pairs:
        raise RefusedError(400, "empty", f"`{fields[1]}` is empty: send at least one text", param=fields[1])
    for i, pair in enumerate(pairs):
        longest, name = max((weight(text), name) for text, name in zip(pair, fields, strict=True))
        if longest > bounds.document_characters:
            one = f"{name}[{i}]" if name == fields[1] and name != "document" else name
            message = f"{one} has {longest} characters, more than {bounds.document_characters}: split it"
            raise RefusedError(413, "text_too_long", message, param=name)
    if sum(weights(pairs)) > bounds.characters:
        message = f"the texts have more than {bounds.characters} characters: send fewer or shorter ones at a time"
        raise RefusedError(413, "texts_too_long", message, param=fields[1])


def check_windows(request: Request, encoded: EncodedPairs, field: str) -> None:
    """Refuse documents of more windows than a request allows.

    Raises:
        RefusedError: a document has more.
    """
    most = request.max_chunks_per_doc or 0
    found = int(np.bincount(encoded.owners).max()) if most else 0
    if found > most:
        message = f"a document has {found} windows, and max_chunks_per_doc is {most}: allow more, or send shorter ones"
        raise RefusedError(422, "too_many_windows", message, param=field)


def limits_of(request: Request, reranker: Reranker) -> Limits:
    """Return the lengths that a request's pairs are cut to, and where.

    Raises:
        RefusedError: `truncate_prompt_tokens` is more than the model can read, or leaves no room for text.
        InputError: lengths exclude one another.
    """
    longest, wanted = reranker.max_length, request.truncate_prompt_tokens
    if wanted is not None and wanted != -1:
        try:
            longest = min(longest, reranker.model.checked_length(wanted))
        except InputError as error:
            message = str(error).replace("max_length", "truncate_prompt_tokens")
            raise RefusedError(422, "invalid_request", message, param="truncate_prompt_tokens") from None
    wanted = request.long_documents
    long_documents = reranker.limits.long_documents if wanted is None else parse_long_documents(wanted)
    if isinstance(long_documents, Windows) and request.overlap_tokens is not None:
        long_documents = replace(long_documents, overlap=request.overlap_tokens)
    return Limits(
        longest,
        query_max_length=request.max_tokens_per_query or None,
        document_max_length=request.max_tokens_per_doc or None,
        long_documents=long_documents,
        truncation_side=request.truncation_side or request.truncation_direction,
    )


def too_long(truncated: int, pairs: int, limits: Limits, field: str) -> RefusedError:
    """Return the error for a request that allows nothing to be cut."""
    message = (
        f"{truncated} of {pairs} pairs have more than {limits.max_length} tokens, and truncation is off: "
        "send shorter texts, or allow it"
    )
    return RefusedError(422, "too_long", message, param=field)


def text_in(document: str | dict[str, Any], index: int, request: RerankRequest, field: str) -> str:
    """Return the text of a document that is read.

    Raises:
        RefusedError: it has none.
    """
    text = _text_of(document, request.rank_fields)
    if text is None:
        wanted = " or ".join(request.rank_fields or ("text", "content"))
        message = f"{field}[{index}] has no text under {wanted}: send a text, or an object with one"
        raise RefusedError(422, "invalid_request", message[:400], param=field)
    return text


def _text_of(document: str | Mapping[str, Any], fields: list[str] | None) -> str | None:
    """Return the text of a document that is to be read; None where it has none.

    Args:
        document: a text, or an object.
        fields: those of an object that are read, joined by line feeds; `text`, or else `content`, if None.
    """
    if isinstance(document, str):
        return document
    names = (
        list(dict.fromkeys(fields))
        if fields
        else [name for name in ("text", "content") if document.get(name) is not None][:1]
    )
    texts = [_as_text(document[name]) for name in names if document.get(name) is not None]
    return "\n".join(map(str, texts)) if texts and None not in texts else None


def _as_text(value: Any) -> str | None:
    """Return a field's value as a text: parts of a message are joined, as clients of chat models send them."""
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in value]
        return " ".join(map(str, parts)) if parts and all(isinstance(part, str) for part in parts) else None
    return str(value) if isinstance(value, (str, int, float)) else None
