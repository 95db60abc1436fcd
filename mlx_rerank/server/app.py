"""The routes, which parse, call the handler, and write what it returns."""

import asyncio
from collections.abc import Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from mlx_rerank.errors import RefusedError
from mlx_rerank.server import answer_schema, dialects, facts, schema
from mlx_rerank.server.access import Keys, SameSite
from mlx_rerank.server.addresses import (
    EXPLAIN_PATHS,
    PREFIXES,
    PROBES,
    RANKING_PATHS,
    RERANK_PATHS,
    SCORE_PATHS,
)
from mlx_rerank.server.answers import EXPOSED_HEADERS, internal_error, refuse, work_headers
from mlx_rerank.server.bodies import BoundedBody, JsonRoute
from mlx_rerank.server.failures import log_failure
from mlx_rerank.server.handler import Handler
from mlx_rerank.server.logs import CLIENT_GONE, RequestLog
from mlx_rerank.server.metrics import Metrics
from mlx_rerank.server.middleware import Attendance, Routing
from mlx_rerank.server.settings import Settings
from mlx_rerank.server.wording import no_method, no_route, unfit, without_documents

T = TypeVar("T")
_PAGE = Path(__file__).parent / "page"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # else a browser runs an old script after an upgrade
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": answer_schema.Error | answer_schema.TeiError, "description": description}
    for status, description in {
        400: "Nothing to rank, or no JSON.", 401: "No key.", 403: "Wrong Host or Origin.", 404: "No such model.",
        408: "The body took too long.", 413: "Too large.", 415: "Not called JSON.", 422: "Not what the schema says.",
        429: "The queue is full.", 500: "A score is not a number.", 503: "Loading or stopping.", 504: "Out of time.",
    }.items()
}  # fmt: skip


def create_app(handler: Handler, settings: Settings) -> FastAPI:
    """Return the ASGI application.

    Args:
        handler: answers requests.
        settings: of the server.
    """
    metrics = Metrics(handler.pool)
    app = FastAPI(
        title="mlx-rerank",
        version=version("mlx-rerank"),
        strict_content_type=False,  # JsonRoute is
        description="Scores documents for a query. Every route also exists below "
        + ", ".join(f"/{prefix}" for prefix in PREFIXES)
        + ", where answers are as that server's clients expect them.",
        middleware=_middleware(handler, metrics, settings),
        exception_handlers={
            RefusedError: _refused,
            RequestValidationError: _invalid,
            HTTPException: _http_error,
        },
        dependencies=[Security(HTTPBearer(auto_error=False))] if settings.keys else None,  # for the document alone
        docs_url=None,  # these would load their scripts from elsewhere
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.router.route_class = JsonRoute
    app.state.most_items = handler.bounds.documents
    _add_ranking(app, handler)
    _add_facts(app, handler, keyed=bool(settings.keys))
    _add_pages(app, metrics)
    return app


def _middleware(handler: Handler, metrics: Metrics, settings: Settings) -> list[Middleware]:
    """Return what a request passes on its way to a route, the outermost first."""
    layers = [
        Middleware(Routing),
        Middleware(RequestLog, count=metrics.answered),
        Middleware(Attendance, handler=handler),
        Middleware(SameSite, hosts=settings.hosts, origins=settings.origins),
    ]
    if settings.origins:
        allowed = {"allow_origins": settings.origins, "allow_methods": ["GET", "POST"], "allow_headers": ["*"]}
        near = {"expose_headers": EXPOSED_HEADERS, "allow_private_network": True}
        layers.append(Middleware(CORSMiddleware, **allowed, **near))
    if settings.keys:
        layers.append(Middleware(Keys, keys=settings.keys))
    layers.append(Middleware(BoundedBody, most=settings.body_bytes, seconds=settings.body_timeout))
    return layers


def _add_ranking(app: FastAPI, handler: Handler) -> None:
    """Add the routes that score."""

    async def rerank(request: Request, body: schema.RerankRequest) -> Response:
        """Rank documents by how well they answer a query."""
        dialect = _dialect(request)
        if body.documents is None and body.texts is None:
            raise without_documents(request.state.fields, dialect.wire)
        return await _answer(request, dialect, handler.rerank(body, dialect))

    async def score(request: Request, body: schema.ScoreRequest) -> Response:
        """Score pairs, in the order given."""
        dialect = _dialect(request)
        return await _answer(request, dialect, handler.score(body, dialect))

    async def explain(request: Request, body: schema.ExplainRequest) -> Response:
        """Tell which words of a query and a document carried the score."""
        return await _answer(request, _dialect(request), handler.explain(body))

    ranking = answer_schema.RerankAnswer | answer_schema.VoyageAnswer | list[answer_schema.TeiResult]
    routes = (
        (RERANK_PATHS, rerank, ranking), (SCORE_PATHS, score, answer_schema.ScoreAnswer),
        (EXPLAIN_PATHS, explain, answer_schema.Explanation),
    )  # fmt: skip
    for paths, function, model in routes:
        answers = {200: {"model": model, "description": "Scores."}, **_ERRORS}
        for path in paths:
            identity = f"{function.__name__}{path.replace('/', '_')}"
            app.add_api_route(
                path, function, methods=["POST"], response_model=None, responses=answers, operation_id=identity
            )
    for path in RANKING_PATHS:  # whose bodies the document does not describe
        app.add_api_route(path, rerank, methods=["POST"], response_model=None, include_in_schema=False)


def _add_facts(app: FastAPI, handler: Handler, *, keyed: bool) -> None:
    """Add the routes that tell about the server."""

    async def health() -> dict[str, str]:
        """Say that the server is alive."""
        return {"status": "ok"}

    async def ready() -> dict[str, str]:
        """Say whether requests are served now."""
        handler.require_service()
        return {"status": "ready"}

    async def info(request: Request) -> dict[str, Any]:
        """Describe the default model, in the words of TEI."""
        return facts.info(handler, tei=request.scope.get("root_path") == "/tei")

    async def probe() -> None:
        """Say whether requests are served now, to Weaviate's module."""
        handler.require_service()

    async def models(request: Request) -> dict[str, Any]:
        """List the models, the default one first."""
        return facts.models(handler.pool, infinity=request.scope.get("root_path") == "/infinity")

    async def model(name: str) -> dict[str, Any]:
        """Describe the model that answers to a name."""
        return facts.model(handler.pool.named(name)) | {"id": name}

    async def auth() -> dict[str, bool]:
        """Say whether a key is needed, to Xinference's clients."""
        return {"auth": keyed}

    for path, function in {"/health": health, "/ready": ready, "/info": info, "/v1/models": models}.items():
        answers: dict[int | str, dict[str, Any]] = {503: _ERRORS[503]} if path in ("/ready", "/info") else {}
        app.add_api_route(path, function, methods=["GET"], responses=answers)
    app.add_api_route("/v1/models/{name:path}", model, methods=["GET"], responses={404: _ERRORS[404]})
    app.add_api_route("/v1/cluster/auth", auth, methods=["GET"])
    app.add_api_route("/models", models, methods=["GET"], include_in_schema=False)
    app.add_api_route("/meta", info, methods=["GET"], include_in_schema=False)
    for path in PROBES:
        app.add_api_route(path, probe, methods=["GET"], status_code=204, include_in_schema=False)


def _add_pages(app: FastAPI, metrics: Metrics) -> None:
    """Add what people and Prometheus look at."""

    async def metrics_text() -> Response:
        """Return counters for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def page() -> Response:
        """Return the page on which to try models."""
        return FileResponse(_PAGE / "index.html", headers=_PAGE_HEADERS)

    app.add_api_route("/metrics", metrics_text, methods=["GET"], include_in_schema=False)
    app.add_api_route("/", page, methods=["GET"], response_class=HTMLResponse)
    app.mount("/page", _PageFiles(directory=_PAGE), name="page")


async def _answer(request: Request, dialect: dialects.Dialect, work: Coroutine[Any, Any, tuple[Any, Any]]) -> Response:
    """Write what the handler returns, or why it does not."""
    try:
        content, taken = await _unless_gone(request, work)
        request.state.work = taken
        return JSONResponse(content, headers=work_headers(taken))
    except _ClientGoneError:
        return Response(status_code=CLIENT_GONE)
    except RefusedError as error:
        return refuse(error, dialect)
    except Exception as error:  # whatever it is, its message may hold a document: it goes no further
        log_failure(error)
        return refuse(internal_error(), dialect)


class _PageFiles(StaticFiles):
    """The files of the page, with its headers."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a file."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(_PAGE_HEADERS)
        return response


def _dialect(request: Request) -> dialects.Dialect:
    """Return how to answer a request, by its path and, where its body has been read, by its fields."""
    found: dialects.Dialect | None = getattr(request.state, "dialect", None)
    return found or dialects.dialect_of(request.url.path)


class _ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Wait for some work; drop it when the client disconnects."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # the body has been read: only a disconnect can come
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _ClientGoneError
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)  # they clear up behind them


async def _refused(request: Request, error: Exception) -> Response:
    """Answer with an error of our own, raised before the handler was called."""
    assert isinstance(error, RefusedError)
    return refuse(error, _dialect(request))


async def _invalid(request: Request, error: Exception) -> Response:
    """Say which field does not fit the schema, but not what it holds."""
    assert isinstance(error, RequestValidationError)
    dialect, fields = _dialect(request), getattr(request.state, "fields", ())
    return refuse(unfit(error.errors()[0], fields, dialect.wire), dialect)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer with the framework's error, or with the error of ours that it wraps, raised while the body was read."""
    assert isinstance(error, HTTPException)
    cause = error.__cause__
    if isinstance(cause, ClientDisconnect):
        return Response(status_code=CLIENT_GONE)
    if isinstance(cause, RefusedError):
        return refuse(cause, _dialect(request))
    path, message, headers = request.url.path, str(error.detail), dict(error.headers or {})
    if error.status_code == 404:
        message = no_route(path)
    elif error.status_code == 405:  # the framework knows of the first route with that path alone
        routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
        methods = {method for route in routes for method in getattr(route, "methods", None) or ()}
        allowed = sorted(methods or {"GET", "HEAD"})  # the latter of the page's files
        message, headers["Allow"] = no_method(request.method, path, allowed), ", ".join(allowed)
    answer = refuse(RefusedError(error.status_code, "http_error", message), _dialect(request))
    answer.headers.update(headers)
    return answer
