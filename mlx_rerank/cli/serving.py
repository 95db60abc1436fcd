"""The command that serves: serve."""

import os
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from mlx_rerank.cli import launching
from mlx_rerank.cli.options import (
    CpuThreads,
    Deterministic,
    Device,
    Dtype,
    Embeddings,
    Instruction,
    LongDocuments,
    MaxLength,
    Revision,
    Template,
)
from mlx_rerank.device.optional import framework
from mlx_rerank.errors import InputError
from mlx_rerank.pairs.decoding import read_text
from mlx_rerank.pairs.rows import lines_of

if TYPE_CHECKING:
    from socket import socket

    from mlx_rerank.server.pool import Pool
    from mlx_rerank.server.settings import Settings

_REFRESH = "MLX_METAL_RESIDENCY_REFRESH_INTERVAL_MS"  # how often MLX, where it knows this, tells macOS what is in use
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def serve(
    model: Annotated[
        list[str] | None, Option("--model", "-m", metavar="[NAME=]MODEL[@DTYPE]", help="Repeat it; mini if none.")
    ] = None,
    host: Annotated[str, Option(help="Name or address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="To listen on; any free one if 0.")] = 8787,
    unix_socket: Annotated[Path | None, Option(metavar="PATH", help="Listen there instead.")] = None,
    api_key_file: Annotated[
        Path | None, Option(metavar="FILE", help="Keys, one a line; or one in MLX_RERANK_API_KEY.")
    ] = None,
    allow_host: Annotated[list[str] | None, Option(metavar="NAME", help="A name the server is called by.")] = None,
    allow_origin: Annotated[list[str] | None, Option(metavar="ORIGIN", help="Whose pages may use it.")] = None,
    dtype: Dtype = None,
    device: Device = None,
    max_length: MaxLength = None,
    long_documents: LongDocuments = "truncate",
    token_budget: Annotated[int | None, Option(min=1, help="Most padded tokens of a batch.")] = None,
    revision: Revision = None,
    deterministic: Deterministic = False,
    embeddings: Embeddings = None,
    cpu_threads: CpuThreads = None,
    template: Template = None,
    instruction: Instruction = None,
    keep_alive: Annotated[float, Option(metavar="SECONDS", help="Unload idle models after; -1 for never.")] = 1800.0,
    memory_limit: Annotated[str | None, Option(metavar="BYTES", help="Of all loaded weights, such as 4G.")] = None,
    unknown_model: Annotated[
        Literal["default", "404"], Option(help="What a name that is not served gets.")
    ] = "default",
    warmup: Annotated[bool, Option("--warmup", help="Load every model at the start, and score with it.")] = False,
    max_documents: Annotated[int, Option(min=1, help="Most of a request.")] = 1000,
    max_characters: Annotated[int, Option(min=1, help="Most of a text.")] = 200_000,
    max_body: Annotated[str, Option(metavar="BYTES", help="Most of a request's body.")] = "8M",
    max_queue: Annotated[int, Option(min=1, help="Most documents that wait, for each model.")] = 4096,
    timeout: Annotated[float, Option(min=0.001, metavar="SECONDS", help="Most that a request may take.")] = 60.0,
    body_timeout: Annotated[float, Option(min=0.001, metavar="SECONDS", help="In which it must arrive.")] = 30.0,
    log_format: Annotated[Literal["text", "json"], Option(help="Of the log, on standard error.")] = "text",
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Option(help="Of the log.")] = "info",
    install_service: Annotated[
        bool, Option("--install-service", help="Have macOS run it from login on; elsewhere, print launchd's file.")
    ] = False,
    uninstall_service: Annotated[bool, Option("--uninstall-service", help="Stop that, and leave nothing.")] = False,
    service_status: Annotated[
        bool, Option("--service-status", help="Tell how it is; exit code 1 if it does not run.")
    ] = False,
) -> None:
    """Serve rankings over HTTP, for the clients of Cohere, Jina, Voyage, TEI, vLLM, infinity and llama-server."""
    if launching.is_managed(install=install_service, uninstall=uninstall_service, status=service_status):
        return
    _before_mlx()
    with framework("the server"):
        from mlx_rerank.server import logs, run
        from mlx_rerank.server.handler import Bounds
        from mlx_rerank.server.settings import Settings

    settings = Settings(
        hosts=(host, *(allow_host or ())),
        origins=_origins(allow_origin or []),
        keys=_keys(api_key_file),
        body_bytes=_size("--max-body", max_body),
        body_timeout=body_timeout,
    )
    pool = _pool(
        model or ["mini"],
        keep_alive=keep_alive if keep_alive >= 0 else None,  # NaN is never either
        memory_limit=None if memory_limit is None else _size("--memory-limit", memory_limit),
        refuse_unknown=unknown_model == "404",
        warm_up=warmup,
        dtype=dtype,
        device=device,
        max_length=max_length,
        long_documents=long_documents,
        token_budget=token_budget,
        deterministic=deterministic,
        embeddings=embeddings,
        revision=revision,
        cpu_threads=cpu_threads,
        template=template,
        instruction=instruction,
    )
    if install_service:
        launching.install()
        return
    bounds = Bounds(max_documents, max_characters, settings.body_bytes, max_queue, timeout)
    listener = _listen(host, port, unix_socket, settings)
    with closing(logs.set_up(log_format, log_level)):
        run.run(pool, bounds, settings, listener)


def _before_mlx() -> None:
    """Set what MLX reads when it is imported, and warn where it does not use all of the chip."""
    from mlx_rerank.device import kernels

    os.environ.setdefault(_REFRESH, "1000")  # milliseconds
    kernels.warn_if_missing()


def _pool(
    models: list[str],
    keep_alive: float | None,
    memory_limit: int | None,
    *,
    refuse_unknown: bool,
    warm_up: bool,
    **options: Any,
) -> "Pool":
    """Return the pool of models that are asked for, which are loaded with these options."""
    from mlx_rerank.scoring.loaded import ModelOptions
    from mlx_rerank.server.pool import Pool
    from mlx_rerank.server.served import ModelSpec

    return Pool(
        [ModelSpec.parse(model) for model in models],
        keep_alive=keep_alive,
        memory_limit=memory_limit,
        refuse_unknown=refuse_unknown,
        warm_up=warm_up,
        options=ModelOptions(**options),
    )


def _keys(path: Path | None) -> tuple[str, ...]:
    """Return the keys of a file and of the environment, which other users do not see in a list of processes."""
    given = os.environ.get(launching.KEY_VARIABLE, "").strip()
    lines = []
    if path is not None:
        try:
            lines = lines_of(read_text(str(path)))
        except InputError as error:
            raise InputError(f"--api-key-file {error}") from error
        if not lines:
            raise InputError(f"--api-key-file {path} holds no key: write one a line")
    return tuple(key for key in (given, *(line.strip() for line in lines)) if key)


def _origins(given: list[str]) -> tuple[str, ...]:
    """Return origins, checked: a browser compares them letter by letter."""
    for origin in given:
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s*]+", origin):
            raise InputError(
                f"--allow-origin {origin!r} is not an origin, such as https://chat.example or app://obsidian.md"
            )
    return tuple(given)


def _size(option: str, text: str) -> int:
    """Return a number of bytes, such as 32M or 4G."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,12})?)\s*([kmg]?)b?", text.strip().lower())
    if not found or float(found[1]) * _UNITS[found[2]] < 1:
        raise InputError(f"{option} {text!r} is not a number of bytes, such as 4G or 500M")
    return int(float(found[1]) * _UNITS[found[2]])


def _listen(host: str, port: int, unix_socket: Path | None, settings: "Settings") -> "socket":
    """Open what the server listens on, and warn if anybody in the network may use it."""
    from mlx_rerank.server.run import open_socket

    listener = open_socket(host, port, unix_socket)
    if unix_socket is None and host not in ("127.0.0.1", "localhost", "::1") and not settings.keys:
        typer.echo(
            f"mlx-rerank: warning: {host} may be reached by others, and no key is needed: set --api-key-file", err=True
        )
    return listener
