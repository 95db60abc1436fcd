"""The command line.

Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage, 130 interrupted, 143 terminated.
"""

import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer import Option

from mlx_rerank.cli import benching, converting, doctoring, explaining, models, scoring, serving, training
from mlx_rerank.errors import InputError, RerankError, printable

app = typer.Typer(
    name="mlx-rerank",
    help="Rerank documents with cross-encoders on Apple's MLX.",
    epilog="Exit codes: 0 done, 1 error, 2 wrong usage, 130 interrupted, 143 terminated.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
COMMANDS = (
    scoring.rank,
    scoring.score,
    explaining.explain,
    converting.convert,
    training.train,
    converting.upload,
    models.models,
    models.info,
    models.audit,
    models.verify,
    doctoring.doctor,
    serving.serve,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(benching.app)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a conversion removes its temporary directory
    _fill_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a bar or a letter gets a question mark
    try:
        if sys.stdout is None:
            raise InputError("standard output is closed: send it somewhere, such as > /dev/null")
        code = app(args=arguments, prog_name="mlx-rerank", standalone_mode=False) or 0
        sys.stdout.flush()
    except RerankError as error:
        typer.echo(f"mlx-rerank: {error}", err=True)
        code = 1
    except BrokenPipeError:  # the reader, such as head, has seen enough
        _drop_output()
        code = 0
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        _drop_output()  # typer and rich leave with 1 for the same reason
        code = 0
    except OSError as error:
        typer.echo(f"mlx-rerank: {printable(error)}", err=True)
        _drop_output()
        code = 1
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        code = _usage_error(error)
    sys.exit(code)


def _fill_closed() -> None:
    """Open what the shell closed (such as 2>&-) on nothing: a file of ours must not become standard output or error."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - it is open until the end


def _drop_output() -> None:
    """Let what cannot be printed go nowhere: Python would try again at its end, and change the exit code."""
    with suppress(OSError):
        sys.stdout.flush()  # if it is standard error that nobody reads
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage_error(error: Exception) -> int:
    """Show a usage error and return its exit code; raise any other error again."""
    show = getattr(error, "show", None)
    if show is None:
        raise error
    show()
    return getattr(error, "exit_code", 2)


def _print_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        typer.echo(f"mlx-rerank {version('mlx-rerank')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[bool, Option("--version", callback=_print_version, is_eager=True, help="Show the version.")] = False,
) -> Any:
    """Rerank documents with cross-encoders on Apple's MLX."""
