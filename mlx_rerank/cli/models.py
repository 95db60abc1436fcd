"""The commands about models themselves: info and audit."""

from typing import Annotated

import typer
from typer import Argument, Option

from mlx_rerank.cli.options import AsJson, Revision


def info(
    model: Annotated[str, Argument(help="mini, a hub id, or a directory.")] = "mini",
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Describe a model and this machine."""
    from mlx_rerank.display import print_json
    from mlx_rerank.info import describe

    facts = describe(model, revision)
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        words = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else value
        typer.echo(f"{name:<24}{words}")


def audit(
    model: Annotated[str, Argument(help="mini, a hub id, or a directory.")] = "mini",
    dtype: Annotated[str | None, Option(help="float16, bfloat16 or float32; each of them by default.")] = None,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Check that a model stays in one dtype, without reading its weights; exit code 1 where it does not."""
    from mlx_rerank.audit import audit_checkpoint
    from mlx_rerank.display import print_audit

    cells = audit_checkpoint(model, dtype=dtype, revision=revision)
    print_audit(cells, as_json=as_json)
    if any(cell.report.violations for cell in cells):
        raise typer.Exit(1)
