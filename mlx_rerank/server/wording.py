"""What a client is told of a request that cannot be read, in its own words but without its texts."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_rerank.errors import RefusedError
from mlx_rerank.server.addresses import nearest
from mlx_rerank.server.wires import Wire


def unfit(found: Mapping[str, Any], fields: Sequence[str], wire: Wire | None) -> RefusedError:
    """Return the error for a body that does not fit the schema: which field, but not what it holds.

    Args:
        found: the first error, as pydantic tells it.
        fields: names of the body's fields.
        wire: the program that has words of its own.
    """
    name, *rest = [part for part in found["loc"] if part != "body"] or ["the body"]
    name = wire.documents if wire and name == "documents" else name
    where = ".".join(map(str, (name, *rest)))
    message = f"{where}: {found['msg'].removeprefix('Value error, ')}"
    if name == "the body":
        message = "the body: it is no JSON object: send one with the fields of /openapi.json"
    elif found["type"] == "missing":
        message = f"{where} is missing among the fields {_listed(fields)}: send it"
    return RefusedError(422, "invalid_request", message, param=None if name == "the body" else where)


def without_documents(fields: Sequence[str], wire: Wire | None) -> RefusedError:
    """Return the error for a request that calls its documents something else, or has none; as `unfit`."""
    name = wire.documents if wire else "documents"
    message = f"`{name}` is empty, or missing among the fields {_listed(fields)}: send at least one text"
    return RefusedError(400, "empty", message, param=name)


def no_route(path: str) -> str:
    """Return what to say of an address that leads nowhere."""
    return f"there is no {path[:80]}: use {nearest(path)}, or see /openapi.json"


def no_method(method: str, path: str, allowed: Sequence[str]) -> str:
    """Return what to say of an address that is asked in a way that it does not know."""
    return f"{path[:80]} takes no {method[:20]}: use {' or '.join(allowed)}"


def _listed(names: Sequence[str]) -> str:
    """Return the names of fields, as many as can be read at a glance."""
    return ", ".join(name[:40] for name in names[:8]) or "(none)"
