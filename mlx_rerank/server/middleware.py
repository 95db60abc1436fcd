"""What every request passes on its way to a route."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_rerank.server.addresses import meant, prefix_of
from mlx_rerank.server.answers import turn_down
from mlx_rerank.server.handler import Handler


class Routing:
    """Makes every route available below some prefixes too, at addresses that mean it, and to HEAD requests.

    A prefix stays in the path, because it decides the dialect.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Take the application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            path = meant(scope["path"], scope["method"])
            prefix = prefix_of(path)
            scope = {**scope, "path": path, **({"root_path": f"/{prefix}"} if prefix else {})}
            if scope["method"] == "HEAD":
                scope["method"] = "GET"  # the protocol, which has a scope of its own, leaves the body out
        await self._app(scope, receive, send)


class Attendance:
    """Counts the requests that are under way, refuses new ones once the server is stopping, and says goodbye.

    The last answer on a connection tells the client to close it, so that it sends no request while the server ends.
    """

    def __init__(self, app: ASGIApp, handler: Handler) -> None:
        """Take the application, and who knows whether the server is stopping."""
        self._app, self._handler = app, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 503."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._handler.draining:
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        self._handler.under_way += 1
        try:
            if self._handler.draining and scope["method"] == "POST":
                await turn_down(self._handler.stopping(), scope, receive, send_last)
            else:
                await self._app(scope, receive, send_last)
        finally:
            self._handler.under_way -= 1
