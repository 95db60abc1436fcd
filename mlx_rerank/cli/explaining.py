"""The command that tells which words carried a score: explain."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from typer import Argument, Option

from mlx_rerank.cli.options import (
    AsJson,
    CpuThreads,
    Device,
    Dtype,
    Embeddings,
    Instruction,
    LongDocuments,
    MaxLength,
    Model,
    Revision,
    Template,
    Timeout,
)
from mlx_rerank.errors import InputError
from mlx_rerank.pairs.files import read_document
from mlx_rerank.pairs.rows import InputFormat


def explain(
    query: Annotated[str, Argument(help="What is asked.")],
    file: Annotated[str, Argument(metavar="[FILE|-]", help="The document, a text file, or JSON with one.")] = "-",
    form: Annotated[InputFormat, Option("--format", help="How it is read; files for the whole text.")] = "auto",
    model: Model = "mini",
    dtype: Dtype = None,
    device: Device = None,
    max_length: MaxLength = None,
    long_documents: LongDocuments = "truncate",
    revision: Revision = None,
    embeddings: Embeddings = None,
    cpu_threads: CpuThreads = None,
    template: Template = None,
    instruction: Instruction = None,
    max_passes: Annotated[int | None, Option(min=2, help="Most times that the pair is computed; 128.")] = None,
    as_html: Annotated[bool, Option("--html", help="An HTML fragment.")] = False,
    as_json: AsJson = False,
    timeout: Timeout = None,
) -> None:
    """Show which words of a query and a document carried the score."""
    from mlx_rerank.cli.printing import print_json
    from mlx_rerank.scoring.loaded import ModelOptions
    from mlx_rerank.scoring.occlusion import MAX_PASSES
    from mlx_rerank.scoring.reranker import Reranker

    if as_html and as_json:
        raise InputError("--html and --json are two forms: choose one")
    document = read_document(file, form)
    options = ModelOptions(
        dtype=dtype,
        device=device,
        max_length=max_length,
        long_documents=long_documents,
        embeddings=embeddings,
        revision=revision,
        cpu_threads=cpu_threads,
        template=template,
        instruction=instruction,
    )
    reranker = Reranker(model, **vars(options))
    found = reranker.explain(
        query, document, max_passes=MAX_PASSES if max_passes is None else max_passes, timeout=timeout
    )
    if as_html:
        typer.echo(found.to_html())
    elif as_json or not sys.stdout.isatty():
        print_json(asdict(found))
    else:
        from rich import print as show

        show(found)
