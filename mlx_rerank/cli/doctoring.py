"""The command that checks a machine: doctor."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from mlx_rerank.cli.options import AsJson, Device
from mlx_rerank.errors import printable

if TYPE_CHECKING:
    from mlx_rerank.proof.doctor import Checked


def doctor(
    only: Annotated[list[str] | None, Option(metavar="CHECK", help="Run this check; repeat it for several.")] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Check that this machine computes what it should, for a report; exit code 1 where it does not."""
    from mlx_rerank.cli.printing import print_json
    from mlx_rerank.device.machine import describe
    from mlx_rerank.proof.doctor import examine

    show = print_json if as_json else _show
    show({"machine": describe()})
    failed = []
    for checked in examine(device, only or ()):
        for row in _rows(checked):
            show(row)
        failed += [] if checked.passed else [checked.name]
    if not as_json:
        typer.echo(f"not as it should be: {', '.join(failed)}" if failed else "all as it should be")
    if failed:
        raise typer.Exit(1)


def _rows(checked: "Checked") -> list[dict[str, Any]]:
    """Return what a check found, and how it ended if that was before its time, ready for JSON."""
    rows = [
        {"check": checked.name, "passed": finding.passed, **asdict(finding)}
        | {"measured": finding.measured if math.isfinite(finding.measured) else None}
        for finding in checked.findings
    ]
    seconds = {"seconds": round(checked.seconds, 1)}
    return [*rows, {"check": checked.name, "passed": checked.passed, "failure": checked.failure, **seconds}]


def _show(row: dict[str, Any]) -> None:
    """Print a row for people."""
    if "machine" in row:
        for name, value in row["machine"].items():
            words = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else value
            typer.echo(f"{name:<24}{printable(words)}")
        return
    start = f"{'ok' if row['passed'] else 'WRONG':<6}{row['check']:<10}"
    if "what" in row:
        measured = "no number" if row["measured"] is None else f"{row['measured']:.2g}"
        remedy = f"; {row['remedy']}" if row["remedy"] and not row["passed"] else ""
        typer.echo(f"{start}{row['what']}: {measured}, at most {row['bound']:.2g}{remedy}")
    elif row["failure"]:
        typer.echo(f"{start}{printable(row['failure'])}")
