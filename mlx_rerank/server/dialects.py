"""The shapes in which clients expect their answers and errors, chosen by route and request."""

import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from mlx_rerank.errors import RefusedError
from mlx_rerank.scoring.explanation import Explanation

PREFIXES = ("cohere", "jina", "voyage", "tei", "vllm", "infinity")
_TEXT_ROUTES = ("/infinity/", "/api/rerank")  # whose documents are strings
_TEI_TYPES = {429: "Overloaded", 500: "Backend", 503: "Unhealthy", 504: "Backend"}  # others: Validation
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class Shape(Enum):
    """The shape of an answer."""

    COMMON = "common"  # Cohere, Jina, vLLM, infinity, llama-server
    VOYAGE = "voyage"
    TEI = "tei"


@dataclass(frozen=True)
class Dialect:
    """How a client is to be answered.

    Args:
        shape: of answer and errors.
        as_text: documents are strings, and not objects.
        return_documents: whether documents are returned where the request does not say.
        version: of Cohere's interface.
        itemised: whether the `detail` of a validation error is a list, as FastAPI has it.
    """

    shape: Shape
    as_text: bool = False
    return_documents: bool = False
    version: str = "1"
    itemised: bool = False


@dataclass(frozen=True)
class Ranked:
    """A document of a ranking, before it is put into a shape: as it was given, and the text of it that was read."""

    index: int
    score: float
    document: str | Mapping[str, Any]
    text: str
    tokens: int
    truncated_tokens: int
    share_read: float
    span: list[int]


def dialect_of(path: str, fields: Collection[str] = ()) -> Dialect:
    """Return how to answer a request.

    Args:
        path: of its URL.
        fields: that its body has, where that is known.
    """
    prefix = "".join(path.split("/")[1:2])
    if path == "/" or prefix == "tei" or "texts" in fields:
        return Dialect(Shape.TEI, as_text=True)
    if prefix == "voyage" or "top_k" in fields or "truncation" in fields:
        return Dialect(Shape.VOYAGE, as_text=True, return_documents=prefix == "voyage")
    return Dialect(
        Shape.COMMON,
        as_text=path.startswith(_TEXT_ROUTES),
        return_documents=prefix in ("vllm", "jina"),
        version="2" if "/v2/" in path else "1",
        itemised=prefix == "infinity",
    )


def ranking(dialect: Dialect, model: str, ranked: Sequence[Ranked], tokens: int, *, documents: bool) -> Any:
    """Return the answer to a rerank request, to be written as JSON.

    Args:
        dialect: how.
        model: the name that the client is to read.
        ranked: results, best first.
        tokens: that were read for all documents, including those that are not among the results.
        documents: whether to return them.
    """
    if dialect.shape is Shape.TEI:
        return [
            {"index": row.index, "score": row.score, **({"text": row.text} if documents else {})}
            | {"truncated_tokens": row.truncated_tokens, "span": row.span}
            for row in ranked
        ]
    results = [_result(row, dialect, documents) for row in ranked]
    if dialect.shape is Shape.VOYAGE:
        return {"object": "list", "data": results, "model": model, "usage": _usage(tokens)}
    meta = {"api_version": {"version": dialect.version}, "billed_units": {"search_units": 0}}
    return _envelope("rerank", "rerank", model) | {"results": results, "usage": _usage(tokens), "meta": meta}


def scores(model: str, values: Sequence[float], truncated_tokens: Sequence[int], tokens: int) -> dict[str, Any]:
    """Return the answer to a score request, to be written as JSON."""
    rows = zip(values, truncated_tokens, strict=True)
    data = [
        {"index": i, "object": "score", "score": value, "truncated_tokens": cut} for i, (value, cut) in enumerate(rows)
    ]
    return _envelope("score", "list", model) | {"data": data, "usage": _usage(tokens)}


def explanation(model: str, found: Explanation) -> dict[str, Any]:
    """Return the answer to a request for an explanation, to be written as JSON."""
    weights = {
        "query": [asdict(highlight) for highlight in found.query_highlights],
        "document": [asdict(highlight) for highlight in found.document_highlights],
    }
    facts = {"truncated_tokens": found.truncated_tokens, "span": list(found.span)}
    return _envelope("explain", "explanation", model) | {"score": found.score, "logit": found.logit} | weights | facts


def _usage(tokens: int) -> dict[str, int]:
    """Return how many tokens were read."""
    return {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}


def refusal(dialect: Dialect, error: RefusedError) -> dict[str, Any]:
    """Return an error, to be written as JSON."""
    message = str(error)
    if dialect.shape is Shape.TEI:
        known = _TEI_TYPES.get(error.status, "Validation")
        return {"error": message, "error_type": "Empty" if error.code == "empty" else known}
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    detail = {"message": message, "type": kind, "param": error.param, "code": error.code}
    items = [{"loc": ["body", error.param or ""], "msg": message, "type": error.code}]
    listed = dialect.itemised and error.status == 422
    return {"error": detail, "message": message, "detail": items if listed else message}


def _envelope(kind: str, name: str, model: str) -> dict[str, Any]:
    """Return what an answer begins with."""
    return {"id": f"{kind}-{uuid.uuid4().hex}", "object": name, "created": int(time.time()), "model": model}


def _result(row: Ranked, dialect: Dialect, documents: bool) -> dict[str, Any]:
    """Return one result of the common shape, or of Voyage's."""
    result: dict[str, Any] = {"index": row.index, "relevance_score": row.score}
    if documents:
        fields = {} if isinstance(row.document, str) else row.document
        text = fields.get("text")
        whole = {**fields, "text": text if isinstance(text, str) else row.text}
        result["document"] = row.text if dialect.as_text else whole
    return result | {
        "tokens": row.tokens, "truncated_tokens": row.truncated_tokens, "share_read": row.share_read,
        "span": row.span,
    }  # fmt: skip
