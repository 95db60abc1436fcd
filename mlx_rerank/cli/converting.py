"""The commands that make models: convert and upload."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from mlx_rerank.checkpoints.config import CONVERSION_KEY, read_config
from mlx_rerank.checkpoints.packing import PACKINGS, Quantization
from mlx_rerank.cli.options import DryRun, Private, Revision, Template
from mlx_rerank.errors import InputError, printable
from mlx_rerank.pairs.files import read_documents
from mlx_rerank.pairs.samples import pairs_from_corpus

Recipe = Literal["uniform", "auto"]


def convert(
    hf_path: Annotated[str, Option("--hf-path", "--model", help="Hub id or Hugging Face directory.")],
    mlx_path: Annotated[Path, Option(help="Directory to write; it must not exist.")] = Path("mlx_model"),
    dtype: Annotated[str, Option(help="float16, bfloat16 or float32.")] = "float16",
    revision: Revision = None,
    quantize: Annotated[bool, Option("--quantize", "-q", help="Pack the weights to fewer bits.")] = False,
    q_bits: Annotated[int | None, Option(help="Bits of the encoder's weights: 2, 3, 4, 5, 6 or 8; 8.")] = None,
    q_group_size: Annotated[int | None, Option(help="Weights that share a scale: 32, 64 or 128; 64.")] = None,
    q_mode: Annotated[
        str | None, Option(help="affine, mxfp4, mxfp8 or nvfp4; none leaves the encoder as it is; affine.")
    ] = None,
    q_embedding_bits: Annotated[int | None, Option(help="Of the word embeddings; as --q-bits.")] = None,
    q_embedding_group_size: Annotated[int | None, Option(help="Of the same; as --q-group-size.")] = None,
    q_embedding_mode: Annotated[str | None, Option(help="Of the same; as --q-mode.")] = None,
    q_recipe: Annotated[Recipe | None, Option(help="auto measures how few bits each layer can do with.")] = None,
    q_target_bits: Annotated[float | None, Option(help="Most bits a weight, on average, for auto; 5.5.")] = None,
    trim_vocab: Annotated[
        str | None, Option(metavar="FILE", help="Keep only what texts like these need of the vocabulary.")
    ] = None,
    template: Template = None,
    verify: Annotated[bool, Option("--verify", help="Compare it with PyTorch, and keep the report in it.")] = False,
    upload_repo: Annotated[str | None, Option(metavar="USER/NAME", help="Then upload it to the hub.")] = None,
    private: Private = False,
    dry_run: DryRun = False,
) -> None:
    """Convert a Hugging Face checkpoint to a directory that loads without transformers or torch."""
    from mlx_rerank.checkpoints.card import describe_trimming
    from mlx_rerank.convert import convert
    from mlx_rerank.convert.upload import require_login, require_repo_id
    from mlx_rerank.proof.reference import require_reference

    if upload_repo is not None:  # checked first, because a conversion takes long
        require_repo_id(upload_repo)
    elif private or dry_run:
        raise InputError("--private and --dry-run are about an upload: say where to with --upload-repo")
    chosen = q_mode, q_bits, q_group_size, q_embedding_bits, q_embedding_group_size, q_embedding_mode
    uniform = any(option is not None for option in chosen)
    packing: dict[str, Any] = {}
    if not quantize and (uniform or q_recipe is not None or q_target_bits is not None):
        raise InputError("the --q options pack weights only along with --quantize (-q)")
    if q_target_bits is not None and q_recipe != "auto":
        raise InputError("--q-target-bits is the aim of --q-recipe auto: give both, or neither")
    if quantize and q_recipe == "auto":
        if uniform:
            raise InputError("--q-recipe auto chooses bits, groups and mode itself: leave them out, or the recipe")
        packing = {"target_bits": 5.5 if q_target_bits is None else q_target_bits}
    elif quantize:
        packing = _packings(*chosen)
    if verify:
        require_reference()
    if upload_repo is not None and not dry_run:
        require_login(upload_repo)
    texts = None if trim_vocab is None else _texts(trim_vocab)
    told: dict[str, Any] = {"name": upload_repo, "template": template}
    target = convert(hf_path, mlx_path, dtype=dtype, revision=revision, **packing, trim_vocab=texts, **told)
    size = sum(path.stat().st_size for path in target.iterdir())
    typer.echo(f"wrote {target} ({size / 1e6:.1f} MB)", err=True)
    if texts:
        record = read_config(target)[CONVERSION_KEY]["vocabulary"]
        typer.echo(f"vocabulary: {describe_trimming(record)}", err=True)
    if verify:
        pairs = None if texts is None else pairs_from_corpus(texts)  # a trimmed vocabulary has their tokens
        _verify(target, hf_path, revision, pairs, "; nothing was uploaded" if upload_repo else "")
    if upload_repo is not None:
        upload(target, upload_repo, private, dry_run)


def upload(
    directory: Annotated[Path, Argument(help="A directory that convert has written.")],
    repo: Annotated[str, Argument(metavar="USER/NAME", help="The repository; created if it does not exist.")],
    private: Private = False,
    dry_run: DryRun = False,
) -> None:
    """Upload a converted directory, with its model card, to the Hugging Face hub."""
    from mlx_rerank.convert.upload import contents, upload
    from mlx_rerank.proof.verification import failed_verification

    if failed_verification(directory):
        typer.echo(f"mlx-rerank: warning: {directory} did not pass its verification: see its README.md", err=True)
    if not dry_run:
        typer.echo(upload(directory, repo, private=private))
        return
    files = contents(directory, repo)
    sizes = {name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in files.items()}
    typer.echo(f"dry run, nothing is sent. {directory} would go to {repo}{' (private)' if private else ''}:\n")
    for name, size in {**sizes, f"in {len(sizes)} files": sum(sizes.values())}.items():
        typer.echo(f"{size:>15,}  {printable(name)}")
    card = files["README.md"]
    lines = (card.decode() if isinstance(card, bytes) else str(card)).splitlines()
    typer.echo("\n" + "\n".join(map(printable, lines)))


def _texts(path: str) -> list[str]:
    """Return the documents of a file; a title, as in BEIR's files, comes before its text."""
    rows = read_documents([path], "auto")
    return [
        " ".join(part for part in (row.get("title"), row["text"]) if part and isinstance(part, str)) for row in rows
    ]


def _verify(
    directory: Path, source: str, revision: str | None, pairs: list[tuple[str, str]] | None, remark: str
) -> None:
    """Compare a conversion with its source, and keep the report in it; leave with 1 where it does not pass."""
    from mlx_rerank.cli.printing import print_report
    from mlx_rerank.proof.verification import store
    from mlx_rerank.proof.verify import verify

    report = verify(directory, against=source, against_revision=revision, pairs=pairs)
    store(report, directory)
    print_report(report, as_json=False)
    if not report.passed:
        typer.echo(f"mlx-rerank: {directory} is kept, with this report in it{remark}", err=True)
        raise typer.Exit(1)


def _packings(
    mode: str | None,
    bits: int | None,
    group_size: int | None,
    embedding_bits: int | None,
    embedding_group_size: int | None,
    embedding_mode: str | None,
) -> dict[str, Quantization | None]:
    """Return how the encoder and the word embeddings are packed: alike, unless options say otherwise."""
    mode = "affine" if mode is None else mode
    words_mode = mode if embedding_mode is None else embedding_mode
    alike = words_mode == mode
    layers = _packing(mode, bits, group_size)
    embeddings = _packing(
        words_mode,
        bits if embedding_bits is None and alike else embedding_bits,
        group_size if embedding_group_size is None and alike else embedding_group_size,
    )
    if not layers and not embeddings:
        raise InputError("--q-mode none and --q-embedding-mode none leave nothing to pack: drop --quantize (-q)")
    return {"layers": layers, "embeddings": embeddings}


def _packing(mode: str, bits: int | None, group_size: int | None) -> Quantization | None:
    """Return a packing, with its mode's usual values where none are given; None for the mode none."""
    if mode == "none":
        if bits is not None or group_size is not None:
            raise InputError("the mode none packs nothing: leave its bits and group size out")
        return None
    sizes, widths = PACKINGS.get(mode, ((0,), (0,)))  # an unknown mode is refused by the converter
    return Quantization(sizes[0] if group_size is None else group_size, widths[0] if bits is None else bits, mode)
