"""What a run leaves: facts about the machine, one JSON file, and tables on the terminal."""

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mlx_rerank.bench.contenders import versions
from mlx_rerank.bench.measures import Spread
from mlx_rerank.device.machine import describe
from mlx_rerank.errors import OutputError

_WIDE = 160  # characters, where no terminal says how wide it is


def about(kind: str, command: str) -> dict[str, Any]:
    """Return the facts that any figure must be read with.

    Args:
        kind: the benchmark's name.
        command: that repeats it.
    """
    return {
        "benchmark": kind,
        "command": command,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": machine(),
        "versions": versions(),
    }


def machine() -> dict[str, Any]:
    """Return what this machine is, what is installed on it, and how busy it is."""
    import mlx.core as mx

    known = describe()
    del known["versions"]  # which are told of more libraries
    return {
        **known,
        "chip": str(mx.device_info().get("device_name", known["chip"])),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],  # above 0 before a run: others were at work
    }


def output_path(kind: str, output: Path | None) -> Path:
    """Return where the JSON file goes: as told, or a new name in the current directory.

    Raises:
        OutputError: its directory is not there; told before hours are spent.
    """
    path = output or Path(f"bench-{kind}-{time.strftime('%Y%m%d-%H%M%S')}.json")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"{path} cannot be written: {path.absolute().parent} is not a directory")
    return path


def write(path: Path, facts: dict[str, Any]) -> None:
    """Write one JSON file, whole or not at all."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(path)


def spread(value: Spread, digits: int = 1) -> str:
    """Return a median with its lowest and highest."""
    return f"{value.median:.{digits}f} ({value.low:.{digits}f}..{value.high:.{digits}f})"


def show(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, coloured on a terminal, its first column text and the others figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", no_wrap=True, style="" if i else "cyan")
    for row in rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)
    console.print(title, style="bold")
    console.print(table)
    console.print()
