"""The commands about models themselves: convert, info and audit."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from mlx_rerank.cli.options import AsJson, Revision
from mlx_rerank.config import PACKINGS, Quantization
from mlx_rerank.errors import InputError

Recipe = Literal["uniform", "auto"]


def convert(
    hf_path: Annotated[str, Option("--hf-path", "--model", help="Hub id or Hugging Face directory.")],
    mlx_path: Annotated[Path, Option(help="Directory to write; it must not exist.")] = Path("mlx_model"),
    dtype: Annotated[str, Option(help="float16, bfloat16 or float32.")] = "float16",
    revision: Revision = None,
    quantize: Annotated[bool, Option("--quantize", "-q", help="Pack the weights to fewer bits.")] = False,
    q_bits: Annotated[int | None, Option(help="Bits of the encoder's weights: 2, 3, 4, 5, 6 or 8; 8.")] = None,
    q_group_size: Annotated[int | None, Option(help="Weights that share a scale: 32, 64 or 128; 64.")] = None,
    q_mode: Annotated[str, Option(help="affine, mxfp4, mxfp8 or nvfp4; none leaves the encoder as it is.")] = "affine",
    q_embedding_bits: Annotated[int | None, Option(help="Of the word embeddings; as --q-bits.")] = None,
    q_embedding_group_size: Annotated[int | None, Option(help="Of the same; as --q-group-size.")] = None,
    q_embedding_mode: Annotated[str | None, Option(help="Of the same; as --q-mode.")] = None,
    q_recipe: Annotated[Recipe, Option(help="auto measures how few bits each layer can do with.")] = "uniform",
    q_target_bits: Annotated[float, Option(help="Average bits a weight that auto aims at, scales included.")] = 5.0,
) -> None:
    """Convert a Hugging Face checkpoint to a directory that loads without transformers or torch."""
    from mlx_rerank.convert import convert

    own = q_bits, q_group_size, q_embedding_bits, q_embedding_group_size, q_embedding_mode
    if not quantize and (own != (None,) * 5 or q_mode != "affine" or q_recipe == "auto"):
        raise InputError("the --q options pack weights only along with --quantize (-q)")
    layers = embeddings = target_bits = None
    if quantize and q_recipe == "auto":
        if own != (None,) * 5 or q_mode != "affine":
            raise InputError("--q-recipe auto chooses bits, groups and mode itself: leave them out, or the recipe")
        target_bits = q_target_bits
    elif quantize:
        layers = _packing(q_mode, q_bits, q_group_size)
        alike = q_embedding_mode in (None, q_mode)
        embeddings = _packing(
            q_mode if q_embedding_mode is None else q_embedding_mode,
            q_bits if q_embedding_bits is None and alike else q_embedding_bits,
            q_group_size if q_embedding_group_size is None and alike else q_embedding_group_size,
        )
        if not layers and not embeddings:
            raise InputError("--q-mode none and --q-embedding-mode none leave nothing to pack: drop --quantize (-q)")
    target = convert(
        hf_path, mlx_path, dtype=dtype, revision=revision, layers=layers, embeddings=embeddings, target_bits=target_bits
    )
    size = sum(path.stat().st_size for path in target.iterdir())
    typer.echo(f"wrote {target} ({size / 1e6:.1f} MB)", err=True)


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


def _packing(mode: str, bits: int | None, group_size: int | None) -> Quantization | None:
    """Return a packing with what is usual in its mode where nothing else is said; None for the mode none."""
    if mode == "none":
        return None
    sizes, widths = PACKINGS.get(mode, ((0,), (0,)))  # an unknown mode is refused by the converter
    return Quantization(sizes[0] if group_size is None else group_size, widths[0] if bits is None else bits, mode)
