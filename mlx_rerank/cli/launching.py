"""What `serve` does about the service of macOS instead of serving: installs it, removes it, or tells how it is."""

import os
import shlex
import sys
from pathlib import Path

import typer

from mlx_rerank.errors import InputError

KEY_VARIABLE = "MLX_RERANK_API_KEY"


def install() -> None:
    """Install the service, or print what would be installed."""
    from mlx_rerank.server import service

    if os.environ.get(KEY_VARIABLE):
        raise InputError(f"launchd does not pass {KEY_VARIABLE} on: write the key to a file, for --api-key-file")
    arguments = [word for word in sys.argv[sys.argv.index("serve") + 1 :] if word != "--install-service"]
    if sys.platform == "darwin":
        typer.echo(f"wrote {service.install(arguments)}, and started the server", err=True)
    else:
        typer.echo(service.property_list(arguments).decode())


def is_managed(*, install: bool, uninstall: bool, status: bool) -> bool:
    """Remove the service, or tell how it is, where that is asked for.

    Args:
        install: whether it is to be installed, beside which nothing else can be asked for.
        uninstall: whether it is to be removed.
        status: whether it is asked after.

    Returns:
        Whether that was all that was asked for.

    Raises:
        InputError: more than one of them is asked for, or this is no Mac.
        OutputError: launchd does not do it, or a file cannot be removed.
        Exit: with code 1, the service that is asked after does not run.
    """
    if install + uninstall + status > 1:
        raise InputError("--install-service, --uninstall-service and --service-status: give one of them")
    if uninstall:
        _uninstall()
    elif status:
        _show_status()
    return uninstall or status


def _uninstall() -> None:
    """Remove the service."""
    from mlx_rerank.server import service

    _require_mac("--uninstall-service")
    removed = service.uninstall()
    typer.echo(f"removed {', '.join(map(str, removed))}" if removed else "there was no service", err=True)


def _show_status() -> None:
    """Tell how the service is."""
    from mlx_rerank.server import service

    _require_mac("--service-status")
    found = service.status()
    state = f"runs as process {found.process}" if found.process else "does not run"
    if not found.loaded:
        state = "is not loaded" if found.file else "is not installed"
    typer.echo(f"the service {state}")
    if found.last_exit is not None:
        typer.echo(f"last exit code  {found.last_exit}")
    if found.file:
        typer.echo(f"file            {found.file}\ncommand         {shlex.join(found.command)}")
        typer.echo(f"log             {service.log_file()}")
    if found.command and not Path(found.command[0]).exists():
        typer.echo(f"mlx-rerank: {found.command[0]} is gone: give --install-service again", err=True)
    if not found.process:
        raise typer.Exit(1)


def _require_mac(option: str) -> None:
    """Refuse what only launchd can do."""
    if sys.platform != "darwin":
        raise InputError(f"{option} is about macOS's launchd, which {sys.platform} does not have")
