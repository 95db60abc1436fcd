"""Adapters: this package's reranker as a component of retrieval frameworks, each in a module of its own."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from mlx_rerank.errors import InputError
from mlx_rerank.scoring.reranker import Reranker
from mlx_rerank.scoring.results import RankedDocument


def load(model: str | Path | Reranker, options: Mapping[str, Any] | None = None) -> Reranker:
    """Return the reranker that an adapter works with.

    Args:
        model: its name, or the reranker itself, without options then.
        options: keyword arguments of Reranker.

    Raises:
        InputError: an option is unknown, or of no use with a reranker that is loaded already.
        RerankError: as `Reranker`.
    """
    options = {} if options is None else dict(options)
    if isinstance(model, Reranker):
        if options:
            raise InputError(f"options {sorted(options)} are for a model's name: this Reranker is loaded already")
        return model
    known = [name for name in signature(Reranker).parameters if name != "model"]
    if unknown := sorted(set(options) - set(known)):
        raise InputError(f"{', '.join(unknown)}: no option of Reranker, which has {', '.join(known)}")
    return Reranker(model, **options)


def reading(result: RankedDocument, head: int = 0) -> dict[str, Any]:
    """Return metadata on the reading of a document that was not read as a whole; empty for others.

    Args:
        result: its place in a ranking.
        head: characters of its text that come before the framework's own content.
    """
    document = result.document
    text = document if isinstance(document, str) else document["text"]
    told: dict[str, Any] = {}
    if result.truncated_tokens:
        told["truncated_tokens"] = result.truncated_tokens
    if result.span != (0, len(text)):
        told["relevant_span"] = [max(place - head, 0) for place in result.span]
    return told


def without_reading(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata without another reranker's entries on its reading."""
    return {name: value for name, value in metadata.items() if name not in ("truncated_tokens", "relevant_span")}
