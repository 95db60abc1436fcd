"""The commands that score: rank and score."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from mlx_rerank.cli.options import (
    AsJson,
    CpuThreads,
    Deterministic,
    Device,
    Dtype,
    Embeddings,
    FirstStage,
    Instruction,
    Keep,
    LongDocuments,
    MaxLength,
    Model,
    Raw,
    Reference,
    Revision,
    Scores,
    Template,
    Threshold,
    Timeout,
    Verbose,
)
from mlx_rerank.errors import InputError, StoppedError
from mlx_rerank.pairs.files import read_documents, read_pairs
from mlx_rerank.pairs.rows import InputFormat

if TYPE_CHECKING:
    from mlx_rerank.proof.reference import ReferenceReranker
    from mlx_rerank.scoring.loaded import ModelOptions
    from mlx_rerank.scoring.reranker import Reranker
    from mlx_rerank.scoring.results import PairLogits

Form = Annotated[InputFormat, Option("--format", help="How the input is read.")]

_PART_PAIRS, _PART_CHARACTERS = 1024, 100_000  # of what `score` prints at once: a few seconds of a CPU


def rank(
    query: Annotated[str, Argument(help="What is asked.")],
    files: Annotated[
        list[str] | None, Argument(metavar="[FILE|-]...", help="Lines, JSON, CSV or TSV; or several files.")
    ] = None,
    top_n: Annotated[int | None, Option("--top-n", "-n", min=1, help="How many to show; all by default.")] = None,
    threshold: Threshold = None,
    form: Form = "auto",
    column: Annotated[str | None, Option(metavar="NAME", help="Where the text is; or its number in a table.")] = None,
    model: Model = "mini",
    dtype: Dtype = None,
    device: Device = None,
    max_length: MaxLength = None,
    long_documents: LongDocuments = "truncate",
    revision: Revision = None,
    deterministic: Deterministic = False,
    embeddings: Embeddings = None,
    cpu_threads: CpuThreads = None,
    template: Template = None,
    instruction: Instruction = None,
    score_cache: Scores = None,
    first_stage: FirstStage = None,
    keep: Keep = None,
    raw: Raw = False,
    as_json: AsJson = False,
    reference: Reference = False,
    timeout: Timeout = None,
    verbose: Verbose = False,
) -> None:
    """Rank documents by how well they answer a query."""
    from mlx_rerank.cli import printing
    from mlx_rerank.scoring.loaded import ModelOptions

    documents = read_documents(files or [], form, column)
    if not documents:
        raise InputError("there are no documents: give a file, or write one document a line to standard input")
    limits = _only_mlx(reference, timeout=timeout, threshold=threshold)
    options = ModelOptions(
        dtype=dtype,
        device=device,
        max_length=max_length,
        long_documents=long_documents,
        deterministic=deterministic,
        embeddings=embeddings,
        revision=revision,
        cpu_threads=cpu_threads,
        template=template,
        instruction=instruction,
        score_cache=score_cache,
    )
    reranker = _reranker(reference, model, options, first_stage=first_stage, keep=keep)
    with _measured(reranker, len(documents), verbose):
        ranking = reranker.rank(query, documents, top_n=top_n, raw_scores=raw, **limits)
        printing.print_ranking(ranking, as_json=as_json, raw_scores=raw)


def score(
    file: Annotated[str, Argument(metavar="FILE|-", help="Pairs, as JSON, CSV or TSV.")],
    form: Form = "auto",
    column: Annotated[
        list[str] | None, Option(metavar="NAME", help="Where the query is, and again where the document is.")
    ] = None,
    model: Model = "mini",
    dtype: Dtype = None,
    device: Device = None,
    max_length: MaxLength = None,
    long_documents: LongDocuments = "truncate",
    revision: Revision = None,
    deterministic: Deterministic = False,
    embeddings: Embeddings = None,
    cpu_threads: CpuThreads = None,
    template: Template = None,
    instruction: Instruction = None,
    score_cache: Scores = None,
    raw: Raw = False,
    reference: Reference = False,
    timeout: Timeout = None,
    verbose: Verbose = False,
) -> None:
    """Score (query, document) pairs; one JSON line each, in the order given."""
    from mlx_rerank.cli.printing import print_json
    from mlx_rerank.scoring.loaded import ModelOptions

    pairs = read_pairs(file, form, column or ())
    if not pairs:
        raise InputError(f"{file} holds no pairs")
    limits = _only_mlx(reference, timeout=timeout)
    options = ModelOptions(
        dtype=dtype,
        device=device,
        max_length=max_length,
        long_documents=long_documents,
        deterministic=deterministic,
        embeddings=embeddings,
        revision=revision,
        cpu_threads=cpu_threads,
        template=template,
        instruction=instruction,
        score_cache=score_cache,
    )
    reranker = _reranker(reference, model, options)
    with _measured(reranker, len(pairs), verbose):
        for scored in _in_parts(reranker, pairs, limits):
            rows = zip(
                scored.scores(raw).tolist(), scored.truncated_tokens.tolist(), scored.spans.tolist(), strict=True
            )
            for value, cut, span in rows:
                print_json({"score": value, "truncated_tokens": cut, "span": span})
            sys.stdout.flush()


def _in_parts(
    reranker: "Reranker | ReferenceReranker", pairs: Sequence[tuple[str, str]], limits: dict[str, Any]
) -> Iterator["PairLogits"]:
    """Yield the logits of pairs part by part, so that what is done is printed and kept if the rest is interrupted."""
    end = None if limits.get("timeout") is None else time.monotonic() + limits["timeout"]
    start = 0
    while start < len(pairs):
        sizes = accumulate(len(query) + len(document) for query, document in pairs[start : start + _PART_PAIRS])
        stop = start + max(1, sum(size <= _PART_CHARACTERS for size in sizes))
        if end is not None and start:
            limits = {"timeout": max(end - time.monotonic(), 1e-9)}
        try:
            yield reranker.logits(pairs[start:stop], **limits)
        except StoppedError as error:
            held = (error.indices + start, error.logits, error.truncated_tokens, error.spans)
            before = f"{start} of {len(pairs)} pairs are printed; of those after them " if start else ""
            raise type(error)(f"{before}{error}", *held) from None
        start = stop


def _only_mlx(reference: bool, **options: Any) -> dict[str, Any]:
    """Return the options that are given (the rest are None, False or "truncate"); the reference has none of them."""
    given = {k: v for k, v in options.items() if not (v is None or v is False or v == "truncate")}
    if reference and given:
        raise InputError(f"--{next(iter(given)).replace('_', '-')} is about MLX: leave it or --reference out")
    return given


@contextmanager
def _measured(reranker: "Reranker | ReferenceReranker", pairs: int, verbose: bool) -> Iterator[None]:
    """Afterwards, if verbose, print what was scored, how long that took, and what memory it needed."""
    start = time.perf_counter()
    yield
    if verbose:
        from mlx_rerank.cli.printing import print_usage
        from mlx_rerank.device.memory import usage

        engines = getattr(reranker, "engines", ())  # the reference has none
        tokens = sum(engine.tokens for engine in engines) if engines else None
        print_usage(usage(), time.perf_counter() - start, pairs, tokens)


def _reranker(reference: bool, model: str, options: "ModelOptions", **stages: Any) -> "Reranker | ReferenceReranker":
    """Return the reranker that a command asks for: MLX's, or PyTorch's, which refuses options that only MLX has."""
    if not reference:
        from mlx_rerank.scoring.reranker import Reranker

        return Reranker(model, **vars(options), **stages)
    from mlx_rerank.proof.reference import ReferenceReranker

    if options.device is not None:
        raise InputError(f"--device {options.device} has no effect with --reference, which runs on the CPU")
    shared = ("model", "dtype", "max_length", "revision", "template", "instruction")
    _only_mlx(reference, **{k: v for k, v in vars(options).items() if k not in shared}, **stages)
    dtype = "float32" if options.dtype is None else options.dtype
    return ReferenceReranker(
        model,
        revision=options.revision,
        max_length=options.max_length,
        dtype=dtype,
        template=options.template,
        instruction=options.instruction,
    )
