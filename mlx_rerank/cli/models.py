"""The commands about models themselves: convert and info."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from mlx_rerank.cli.options import AsJson, Revision
from mlx_rerank.errors import InputError


def convert(
    hf_path: Annotated[str, Option("--hf-path", "--model", help="Hub id or Hugging Face directory.")],
    mlx_path: Annotated[Path, Option(help="Directory to write; it must not exist.")] = Path("mlx_model"),
    dtype: Annotated[str, Option(help="float16, bfloat16 or float32.")] = "float16",
    revision: Revision = None,
    quantize: Annotated[bool, Option("--quantize", "-q", help="Pack the weights to fewer bits.")] = False,
    q_bits: Annotated[int | None, Option(help="Bits of the encoder's weights; 8.")] = None,
    q_group_size: Annotated[int | None, Option(help="Weights that share a scale; 64.")] = None,
    q_embedding_bits: Annotated[int | None, Option(help="Bits of the word embeddings; as --q-bits.")] = None,
    q_embedding_group_size: Annotated[int | None, Option(help="The same for them; as --q-group-size.")] = None,
) -> None:
    """Convert a Hugging Face checkpoint to a directory that loads without transformers or torch."""
    from mlx_rerank.config import Quantization
    from mlx_rerank.convert import convert

    layers = embeddings = None
    if quantize:
        layers = Quantization(_or(q_group_size, 64), _or(q_bits, 8), "affine")
        sizes = _or(q_embedding_group_size, layers.group_size), _or(q_embedding_bits, layers.bits)
        embeddings = Quantization(*sizes, "affine")
    elif (q_bits, q_group_size, q_embedding_bits, q_embedding_group_size) != (None,) * 4:
        raise InputError("the --q options pack weights only along with --quantize (-q)")
    target = convert(hf_path, mlx_path, dtype=dtype, revision=revision, layers=layers, embeddings=embeddings)
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


def _or(value: int | None, default: int) -> int:
    """Return a value, or what stands for none."""
    return default if value is None else value
