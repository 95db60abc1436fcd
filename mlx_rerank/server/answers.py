"""Answers of HTTP that are not rankings: errors in the client's shape, and headers."""

from starlette.responses import JSONResponse

from mlx_rerank.errors import RefusedError
from mlx_rerank.server import dialects
from mlx_rerank.server.handler import Work


def refuse(path: str, error: RefusedError, dialect: dialects.Dialect | None = None) -> JSONResponse:
    """Return the answer that an error is."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == 408:
        headers["Connection"] = "close"  # the rest of the body, should it come, is no request
    return JSONResponse(dialects.refusal(dialect or dialects.dialect_of(path), error), error.status, headers)


def work_headers(work: Work) -> dict[str, str]:
    """Return what a request has taken, in milliseconds, tokens and texts."""
    return {
        "x-queue-time": str(round(work.queue_seconds * 1000)),
        "x-inference-time": str(round(work.inference_seconds * 1000)),
        "x-total-time": str(round(work.total_seconds * 1000)),
        "x-compute-tokens": str(work.tokens),
        "x-truncated-documents": str(work.truncated),
    }
