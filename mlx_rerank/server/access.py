"""Who may talk to the server: no page of another site, no rebound name, and nobody without a key where keys are set."""

import hmac
from collections.abc import Collection, Sequence
from hashlib import sha256
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mlx_rerank.errors import RefusedError
from mlx_rerank.server.addresses import PROBES
from mlx_rerank.server.answers import turn_down

# Names that always mean this machine: its own, and those under which containers on it find it.
_CONTAINERS = ("host.docker", "gateway.docker", "host.containers", "host.lima", "host.orb")
_LOCAL_NAMES = frozenset({"localhost", *(f"{name}.internal" for name in _CONTAINERS)})
# Open without a key: the page, which asks for one, probes, and what tells clients that they need one.
_OPEN_PATHS = frozenset({"/", "/health", "/ready", "/openapi.json", "/v1/cluster/auth", *PROBES})


class SameSite:
    """Refuses what a page of another site makes a browser send.

    Such a page can have its own name resolve to this machine (DNS rebinding), which the Host header shows, or send to
    this machine from its own origin, which the Origin header shows. Names are checked. Addresses need no check: nobody
    can have an address resolve to another.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], origins: Collection[str]) -> None:
        """Take the application, the names it may be called by, and the other origins that may use it."""
        self._app = app
        self._hosts = _LOCAL_NAMES | {host.lower() for host in hosts}
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] == "http":
            try:
                self._check(Headers(scope=scope))
            except RefusedError as error:
                await turn_down(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        """Raise RefusedError where a header names another site."""
        host = headers.get("host", "")
        name = _name(host)
        if name not in self._hosts and not _is_address(name):
            message = f"Host {host[:80]!r} is not a name of this server: add it with --allow-host, if it is one"
            raise RefusedError(403, "wrong_host", message)
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and not _same(origin.lower(), host.lower()):
            message = f"Origin {origin[:80]!r} may not use this server: add it with --allow-origin, if it should"
            raise RefusedError(403, "wrong_origin", message)


class Keys:
    """Refuses requests without one of the keys."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        """Take the application and the keys."""
        self._app = app
        self._keys = [sha256(key.encode()).digest() for key in keys]  # so that all compared values have one length

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401."""
        if scope["type"] == "http" and not self._open(scope) and not self._known(Headers(scope=scope)):
            error = RefusedError(401, "wrong_key", "send one of the server's keys: Authorization: Bearer KEY")
            await turn_down(error, scope, receive, send)
            return
        await self._app(scope, receive, send)

    @staticmethod
    def _open(scope: Scope) -> bool:
        """Tell whether a request needs no key."""
        path = scope["path"]
        return scope["method"] == "GET" and (path in _OPEN_PATHS or path.startswith("/page/"))

    def _known(self, headers: Headers) -> bool:
        """Compare with every key, in a time that does not depend on how much of one is right."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        digest = sha256(given.strip().encode("latin-1")).digest()  # as headers are decoded
        matches = [hmac.compare_digest(digest, key) for key in self._keys]
        return scheme.lower() == "bearer" and any(matches)


def _name(host: str) -> str:
    """Return the name in a Host header, without its port; empty where there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _same(origin: str, host: str) -> bool:
    """Tell whether an origin is that of a host, whether or not either names the scheme's own port."""
    scheme, _, place = origin.partition("://")
    port = {"http": ":80", "https": ":443"}.get(scheme, ":")
    return place.removesuffix(port) == host.removesuffix(port)


def _is_address(name: str) -> bool:
    """Tell whether a name is an IP address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
