"""The commands about models themselves: models, info, audit and verify."""

from dataclasses import asdict
from typing import Annotated

import typer
from typer import Argument, Option

from mlx_rerank.cli.options import AsJson, Device, Dtype, MaxLength, Revision
from mlx_rerank.errors import printable
from mlx_rerank.pairs.files import read_pairs


def models(as_json: AsJson = False) -> None:
    """List the families that run, and models of the hub that belong to them."""
    from mlx_rerank.cli.printing import print_json, print_models
    from mlx_rerank.models import FAMILIES

    if not as_json:
        print_models(FAMILIES)
        return
    for family in FAMILIES:
        for known in family.known:
            print_json({"family": family.name, **asdict(known)})


def info(
    model: Annotated[str, Argument(help="mini, a hub id, or a directory.")] = "mini",
    revision: Revision = None,
    measured: Annotated[bool, Option("--measure", help="Also score a pair, and say what memory that took.")] = False,
    as_json: AsJson = False,
) -> None:
    """Describe a model and this machine."""
    from mlx_rerank.cli.describing import describe, measure
    from mlx_rerank.cli.printing import print_json
    from mlx_rerank.device import kernels

    kernels.warn_if_missing()
    facts = describe(model, revision)
    if measured:
        facts["measured_bytes"] = measure(model, revision)
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        words = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else value
        typer.echo(f"{name:<24}{printable(words)}")


def audit(
    model: Annotated[str, Argument(help="mini, a hub id, or a directory.")] = "mini",
    dtype: Annotated[str | None, Option(help="float16, bfloat16 or float32; each of them by default.")] = None,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Check that a model stays in one dtype, without reading its weights; exit code 1 where it does not."""
    from mlx_rerank.cli.printing import print_audit
    from mlx_rerank.proof.audit import audit_checkpoint

    cells = audit_checkpoint(model, dtype=dtype, revision=revision)
    print_audit(cells, as_json=as_json)
    if any(cell.report.violations for cell in cells):
        raise typer.Exit(1)


def verify(
    model: Annotated[str, Argument(help="mini, a hub id, or a directory.")] = "mini",
    against: Annotated[str | None, Option(help="Whose weights PyTorch runs; the model's own by default.")] = None,
    against_revision: Annotated[str | None, Option(help="The same for the model of --against.")] = None,
    pairs: Annotated[str | None, Option(metavar="FILE|-", help="As for score; the package's samples if none.")] = None,
    dtype: Dtype = None,
    device: Device = None,
    max_length: MaxLength = None,
    tolerance: Annotated[float | None, Option(help="Largest |delta logit|; by the dtype if none.")] = None,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Compare a model on MLX with PyTorch; exit code 1 where they differ too much (extra: reference)."""
    from mlx_rerank.cli.printing import print_report
    from mlx_rerank.proof.verify import verify

    report = verify(
        model,
        against=against,
        against_revision=against_revision,
        pairs=None if pairs is None else read_pairs(pairs),
        dtype=dtype,
        device=device,
        max_length=max_length,
        tolerance=tolerance,
        revision=revision,
    )
    print_report(report, as_json=as_json)
    if not report.passed:
        raise typer.Exit(1)
