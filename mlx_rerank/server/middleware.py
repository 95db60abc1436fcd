"""What every request passes, and that has no better place."""

from collections.abc import Callable, Sequence

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Prefixes:
    """Lets every route be found below some prefixes too; the path stays as it is, for the dialect to be told by."""

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        """Take the application and the first parts of paths that it is mounted at."""
        self._app, self._names = app, frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        first = scope.get("path", "").split("/")[1:2]
        if scope["type"] == "http" and self._names.issuperset(first) and first:
            path = scope["path"]
            scope = {**scope, "root_path": f"/{first[0]}", "path": path if path.count("/") > 1 else f"{path}/"}
        await self._app(scope, receive, send)


class LastAnswers:
    """Has clients close their connection with the answer, once the server is stopping: so nothing gets lost."""

    def __init__(self, app: ASGIApp, stopping: Callable[[], bool]) -> None:
        """Take the application, and who knows whether the server is stopping."""
        self._app, self._stopping = app, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._stopping():
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_last)
