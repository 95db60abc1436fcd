"""The command line.

Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage, 130 interrupted, 143 terminated.
"""

import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer import Argument, Option

from mlx_rerank.errors import InputError, RerankError
from mlx_rerank.inputs import InputFormat, read_documents, read_pairs

if TYPE_CHECKING:
    from mlx_rerank.reference import ReferenceReranker
    from mlx_rerank.reranker import Reranker

app = typer.Typer(
    name="mlx-rerank",
    help="Rerank documents with cross-encoders on Apple's MLX.",
    epilog="Exit codes: 0 done, 1 error, 2 wrong usage, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Model = Annotated[str, Option("--model", "-m", help="mini, a hub id, or a directory.")]
Dtype = Annotated[str | None, Option(help="float16, bfloat16 or float32; float16 on a GPU, float32 on a CPU.")]
Device = Annotated[str | None, Option(help="gpu or cpu; MLX's default.")]
MaxLength = Annotated[int | None, Option(help="Most tokens of a pair; 512, or the model's limit.")]
Revision = Annotated[str | None, Option(help="Branch, tag or commit of a hub model.")]
AsJson = Annotated[bool, Option("--json", help="JSON lines even on a terminal.")]
Raw = Annotated[bool, Option("--raw", help="Logits instead of scores in 0..1.")]
Reference = Annotated[bool, Option("--reference", help="Score with PyTorch instead of MLX (extra: reference).")]


@app.command()
def rank(
    query: Annotated[str, Argument(help="What is asked.")],
    files: Annotated[
        list[str] | None, Argument(metavar="[FILE|-]...", help="A document a line, JSONL, or several text files.")
    ] = None,
    top_n: Annotated[int | None, Option("--top-n", "-n", min=1, help="How many to show; all by default.")] = None,
    form: Annotated[InputFormat, Option("--format", help="How the input is read.")] = "auto",
    model: Model = "mini",
    dtype: Dtype = None,
    device: Device = None,
    max_length: MaxLength = None,
    revision: Revision = None,
    raw: Raw = False,
    as_json: AsJson = False,
    reference: Reference = False,
) -> None:
    """Rank documents by how well they answer a query."""
    from mlx_rerank import display

    documents = read_documents(files or [], form)
    if not documents:
        raise InputError("there are no documents: give a file, or write one document a line to standard input")
    reranker = _reranker(reference, model, dtype, device, max_length, revision)
    ranking = reranker.rank(query, documents, top_n=top_n, raw_scores=raw)
    display.print_ranking(ranking, as_json=as_json, raw_scores=raw)


@app.command()
def score(
    file: Annotated[str, Argument(metavar="FILE|-", help="JSONL with query and document, or tab-separated pairs.")],
    model: Model = "mini",
    dtype: Dtype = None,
    device: Device = None,
    max_length: MaxLength = None,
    revision: Revision = None,
    raw: Raw = False,
    reference: Reference = False,
) -> None:
    """Score (query, document) pairs; one JSON line each, in the order given."""
    from mlx_rerank.display import print_json
    from mlx_rerank.reranker import sigmoid

    pairs = read_pairs(file)
    if not pairs:
        raise InputError(f"{file} holds no pairs")
    scored = _reranker(reference, model, dtype, device, max_length, revision).logits(pairs)
    scores = scored.logits if raw else sigmoid(scored.logits)
    for value, cut in zip(scores.tolist(), scored.truncated_tokens.tolist(), strict=True):
        print_json({"score": value, "truncated_tokens": cut})


@app.command()
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


@app.command()
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


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a conversion removes its temporary directory
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a bar or a letter gets a question mark
    try:
        code = app(args=arguments, standalone_mode=False) or 0
        sys.stdout.flush()
    except RerankError as error:
        typer.echo(f"mlx-rerank: {error}", err=True)
        code = 1
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        typer.echo(f"mlx-rerank: {error}", err=True)
        code = 1
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        code = _usage_error(error)
    sys.exit(code)


def _or(value: int | None, default: int) -> int:
    """Return a value, or what stands for none."""
    return default if value is None else value


def _usage_error(error: Exception) -> int:
    """Show an error of the command's own words and return its exit code; raise any other again."""
    show = getattr(error, "show", None)
    if show is None:
        raise error
    show()
    return getattr(error, "exit_code", 2)


def _reranker(
    reference: bool, model: str, dtype: str | None, device: str | None, max_length: int | None, revision: str | None
) -> "Reranker | ReferenceReranker":
    """Return the reranker that a command asks for: MLX's, or PyTorch's."""
    if not reference:
        from mlx_rerank.reranker import Reranker

        return Reranker(model, dtype=dtype, device=device, max_length=max_length, revision=revision)
    from mlx_rerank.hub import resolve
    from mlx_rerank.reference import ReferenceReranker

    if device is not None:
        raise InputError(f"--device {device} has no effect with --reference, which runs on the CPU")
    return ReferenceReranker(resolve(model, revision=revision), max_length=max_length, dtype=dtype or "float32")


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
