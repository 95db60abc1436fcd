"""The shapes in which clients expect their answers and errors, chosen by route and request."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from mlx_rerank.errors import RefusedError
from mlx_rerank.scoring.explanation import Explanation
from mlx_rerank.server.addresses import prefix_of
from mlx_rerank.server.peers import PEERS, as_sent_by, refused_by
from mlx_rerank.server.ranked import Ranked
from mlx_rerank.server.wires import Wire, wire_of

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
        peer: the server whose fields alone are sent; all fields if empty.
        wire: the program that has a shape of its own.
        sent: the fields of its request, which may come back.
    """

    shape: Shape
    as_text: bool = False
    return_documents: bool = False
    version: str = "1"
    itemised: bool = False
    peer: str = ""
    wire: Wire | None = None
    sent: Mapping[str, Any] = field(default_factory=dict)

    def read(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a rerank request that a body stands for; those that are null are left out.

        Raises:
            RefusedError: a program's own words are not as they should be.
        """
        return without_nulls(self.wire.read(self.sent) if self.wire else body)


def dialect_of(path: str, body: Mapping[str, Any] | None = None) -> Dialect:
    """Return how to answer a request: as the server that its path names first, or else as the words of its body say.

    Args:
        path: of its URL.
        body: its fields, where they are known; those that are null count as left out.
    """
    prefix, sent = prefix_of(path), without_nulls(body or {})
    peer = prefix if prefix in PEERS else ""
    wire = wire_of(prefix, path.rpartition("/")[2], sent)
    if wire:
        return Dialect(Shape.TEI if wire.plain else Shape.COMMON, as_text=True, wire=wire, sent=sent)
    if prefix == "tei" or (not prefix and ("texts" in sent or (path == "/" and not sent))):
        return Dialect(Shape.TEI, as_text=True, peer=peer)
    # Voyage's words are a guess, which a word of the others outweighs.
    if prefix == "voyage" or (not prefix and "top_n" not in sent and sent.keys() & {"top_k", "truncation"}):
        return Dialect(Shape.VOYAGE, as_text=True, return_documents=prefix == "voyage", peer=peer)
    return Dialect(
        Shape.COMMON,
        as_text=path.startswith(_TEXT_ROUTES),
        return_documents=prefix in ("vllm", "jina"),
        version="2" if "/v2/" in path else "1",
        itemised=prefix == "infinity",
        peer=peer,
    )


def without_nulls(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a body that say something."""
    return {name: value for name, value in body.items() if value is not None}


def ranking(dialect: Dialect, model: str, ranked: Sequence[Ranked], tokens: int, *, documents: bool) -> Any:
    """Return the answer to a rerank request, to be written as JSON.

    Args:
        dialect: how.
        model: the name that the client is to read.
        ranked: results, best first.
        tokens: that were read for all documents, including those that are not among the results.
        documents: whether to return them.
    """
    if dialect.wire:
        return dialect.wire.write(dialect.sent, model, ranked)
    return as_sent_by(dialect.peer, _ranking(dialect, model, ranked, tokens, documents=documents))


def _ranking(dialect: Dialect, model: str, ranked: Sequence[Ranked], tokens: int, *, documents: bool) -> Any:
    """Return the answer to a rerank request with all that is known; as `ranking`."""
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


def scores(
    dialect: Dialect, model: str, values: Sequence[float], truncated_tokens: Sequence[int], tokens: int
) -> dict[str, Any]:
    """Return the answer to a score request, to be written as JSON."""
    data = [{"index": i, "object": "score", "score": value} for i, value in enumerate(values)]
    if not dialect.peer:
        data = [row | {"truncated_tokens": cut} for row, cut in zip(data, truncated_tokens, strict=True)]
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
    whole = {"error": detail, "message": message, "detail": items if listed else message}
    return refused_by(dialect.peer, whole)


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
