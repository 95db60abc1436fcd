"""Programs that ask in words of their own: what they send is read as a rerank request, and answered as they read it.

A program is a row of WIRES. Their requests are in tests/recorded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_rerank.errors import RefusedError
from mlx_rerank.server.ranked import Ranked

Body = Mapping[str, Any]
FIELDS = frozenset({"candidates", "inputs", "passages", "profile", "property"})  # that are read, beside a request's
_ROUTES = ("", "rerank", "reranking", "ranking")  # ends of the paths at which rankings are asked for
_CUTS = {"NONE": {"truncate": False}, "END": {}, "START": {"truncation_side": "left"}}


@dataclass(frozen=True)
class Wire:
    """How a program asks, and how it is answered.

    Args:
        tells: whether a request is of this program, from the end of its path and the fields that are not null.
        documents: how it calls them.
        read: gives the fields of a rerank request.
        write: gives its answer, from its request, the name of the model and the results.
        plain: whether an error is a text, and not an object.
        untyped: whether it does not call its bodies JSON.
    """

    tells: Callable[[str, Body], bool]
    documents: str
    read: Callable[[Body], dict[str, Any]]
    write: Callable[[Body, str, Sequence[Ranked]], dict[str, Any]]
    plain: bool = False
    untyped: bool = False


def wire_of(prefix: str, route: str, sent: Body) -> Wire | None:
    """Return the program that a request for a ranking is of, if it is one of these.

    Args:
        prefix: the server or program that its path names first; then nothing is guessed.
        route: the end of its path.
        sent: the fields of its body that are not null.
    """
    if route not in _ROUTES:
        return None
    if prefix:
        return WIRES.get(prefix)
    return next((wire for wire in WIRES.values() if wire.tells(route, sent)), None)


def _without_documents(sent: Body) -> bool:
    """Tell whether the words for documents are not those that all others share."""
    return not sent.keys() & {"documents", "texts"}


def _in_order(ranked: Sequence[Ranked]) -> list[Ranked]:
    """Return results in the order of the request."""
    return sorted(ranked, key=lambda row: row.index)


def _read_rag_api(sent: Body) -> dict[str, Any]:
    """Read `{profile, query, candidates: [{id, text, base_score}], top_n}`."""
    return {"documents": sent.get("candidates"), **sent}


def _write_rag_api(sent: Body, model: str, ranked: Sequence[Ranked]) -> dict[str, Any]:
    """Answer with the ids of the candidates."""
    ids = [row.document.get("id") if isinstance(row.document, Mapping) else None for row in ranked]
    results = [{"id": name, "index": row.index, "score": row.score} for name, row in zip(ids, ranked, strict=True)]
    return {"profile": sent.get("profile"), "model": model, "results": results}


def _read_huggingface(sent: Body) -> dict[str, Any]:
    """Read `{inputs: {query, passages}}`; the answer has all scores, as their places alone tell whose they are."""
    inputs = sent.get("inputs", sent)
    if not isinstance(inputs, Mapping):
        message = "`inputs` must be an object with `query` and `passages`: send both"
        raise RefusedError(422, "invalid_request", message, param="inputs")
    given = {name: value for name, value in inputs.items() if value is not None}
    return {"documents": inputs.get("passages"), **sent, **given, "top_n": None, "top_k": None}


def _write_huggingface(sent: Body, model: str, ranked: Sequence[Ranked]) -> dict[str, Any]:
    """Answer with scores alone, in the order of the request."""
    return {"scores": [row.score for row in _in_order(ranked)]}


def _write_weaviate(sent: Body, model: str, ranked: Sequence[Ranked]) -> dict[str, Any]:
    """Answer `{query, documents, property}` in the order of the request: the program counts on it."""
    return {"query": sent["query"], "scores": [{"document": row.text, "score": row.score} for row in _in_order(ranked)]}


def _read_nvidia(sent: Body) -> dict[str, Any]:
    """Read `{model, query: {text}, passages: [{text}], truncate}`; the answer has logits."""
    query, cut = sent.get("query"), sent.get("truncate", "END")
    if not isinstance(cut, str) or cut not in _CUTS:
        message = f"`truncate` is {str(cut)[:20]!r}: send NONE, which refuses texts that are too long, END or START"
        raise RefusedError(422, "invalid_request", message, param="truncate")
    text = query.get("text") if isinstance(query, Mapping) else query
    rest = {name: value for name, value in sent.items() if name != "truncate"}
    return {"documents": sent.get("passages"), **rest, **_CUTS[cut], "query": text, "raw_scores": True}


def _write_nvidia(sent: Body, model: str, ranked: Sequence[Ranked]) -> dict[str, Any]:
    """Answer with logits, best first."""
    return {"rankings": [{"index": row.index, "logit": row.score} for row in ranked]}


WIRES: Mapping[str, Wire] = {
    "rag-api": Wire(  # LibreChat
        lambda route, sent: "candidates" in sent and _without_documents(sent),
        "candidates", _read_rag_api, _write_rag_api,
    ),
    "huggingface": Wire(  # Khoj
        lambda route, sent: isinstance(sent.get("inputs"), Mapping) and _without_documents(sent),
        "passages", _read_huggingface, _write_huggingface, plain=True,
    ),
    "weaviate": Wire(
        lambda route, sent: sent.keys() == {"query", "documents", "property"},
        "documents", dict, _write_weaviate, plain=True, untyped=True,
    ),
    "nvidia": Wire(  # NIM, and the adapters of LangChain and LlamaIndex
        lambda route, sent: "passages" in sent and (route == "ranking" or isinstance(sent.get("query"), Mapping)),
        "passages", _read_nvidia, _write_nvidia,
    ),
}  # fmt: skip
