"""Answers of HTTP that are not rankings: errors in the client's shape, and headers."""

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from mlx_rerank.errors import RefusedError
from mlx_rerank.server import dialects
from mlx_rerank.server.handler import Work

WORK_HEADERS = ("x-queue-time", "x-inference-time", "x-total-time", "x-compute-tokens", "x-truncated-documents")
EXPOSED_HEADERS = ("x-request-id", *WORK_HEADERS, "retry-after")  # to pages of other origins that may use the server


def refuse(error: RefusedError, dialect: dialects.Dialect) -> JSONResponse:
    """Return the answer for an error."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == 408:
        headers["Connection"] = "close"  # the rest of the body, if it comes, is no request
    return JSONResponse(dialects.refusal(dialect, error), error.status, headers)


async def turn_down(error: RefusedError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error before a request has come to its route, and its fields are known."""
    await refuse(error, dialects.dialect_of(scope["path"]))(scope, receive, send)


def internal_error() -> RefusedError:
    """Return what a client is told of an unexpected error: not its message, which may hold another's text."""
    return RefusedError(500, "internal_error", "the server failed at this request, and its log says where")


def work_headers(work: Work) -> dict[str, str]:
    """Return what a request has taken, in milliseconds, tokens and texts."""
    seconds = work.queue_seconds, work.inference_seconds, work.total_seconds
    values = (*(round(1000 * value) for value in seconds), work.tokens, work.truncated)
    return dict(zip(WORK_HEADERS, map(str, values), strict=True))
