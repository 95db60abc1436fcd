"""The command that trains."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from mlx_rerank.cli.options import Device, Revision
from mlx_rerank.errors import InputError

Negatives = Literal["bm25", "model"]


def train(
    data: Annotated[Path, Argument(help="JSON lines: query, pos and neg; triples; or labelled pairs. Or .csv, .tsv.")],
    output: Annotated[Path, Option("--output", "-o", help="Directory to write; it must not exist.")],
    model: Annotated[str, Option("--model", "-m", help="mini, a hub id, or a directory, to begin with.")] = "mini",
    dev: Annotated[Path | None, Option(help="Data to follow nDCG@10 on; it is not trained on.")] = None,
    epochs: Annotated[int, Option(help="Times that every query is seen.")] = 1,
    batch_size: Annotated[int, Option(help="Queries of a step.")] = 8,
    group_size: Annotated[int, Option(help="Most documents of a query in a step.")] = 8,
    learning_rate: Annotated[float | None, Option(help="At its peak; 2e-5, or 2e-4 with --lora-rank.")] = None,
    lora_rank: Annotated[int, Option(help="Train low-rank updates of this rank; 0 trains the weights.")] = 0,
    lora_alpha: Annotated[float | None, Option(help="Updates count alpha / rank times; twice the rank.")] = None,
    loss: Annotated[
        list[str] | None,
        Option(metavar="NAME[=WEIGHT]", help="listwise, binary, distillation, margin-mse; listwise and binary=0.5."),
    ] = None,
    negatives: Annotated[Negatives | None, Option(help="Hard negatives: BM25's, or those the model likes.")] = None,
    corpus: Annotated[Path | None, Option(help="More documents to take them from: lines, or JSONL with text.")] = None,
    train_embeddings: Annotated[bool, Option("--train-embeddings", help="Train the word embeddings too.")] = False,
    max_length: Annotated[int | None, Option(help="Most tokens of a pair; 512.")] = None,
    token_budget: Annotated[int, Option(help="Most tokens held at once: less needs less memory.")] = 4096,
    checkpoint_layers: Annotated[
        bool, Option("--checkpoint-layers", help="Compute activations twice instead of keeping them.")
    ] = False,
    compute_dtype: Annotated[str | None, Option(help="Of the passes, beside float32 weights.")] = None,
    dtype: Annotated[str, Option(help="Of the weights that are written: float16, bfloat16 or float32.")] = "float16",
    seed: Annotated[int, Option(help="Of order and chance.")] = 0,
    evaluate_every: Annotated[int | None, Option(help="Steps between looks at --dev; an epoch.")] = None,
    save_every: Annotated[int, Option(help="Steps between saves to go on from.")] = 100,
    device: Device = None,
    revision: Revision = None,
) -> None:
    """Train a reranker on your own queries and documents.

    A run that was interrupted goes on when the same command is given again.
    """
    from mlx_rerank.pairs.files import read_documents
    from mlx_rerank.train import TrainingOptions, train

    chosen: dict[str, Any] = {"losses": _losses(loss)} if loss else {}
    options = TrainingOptions(
        epochs=epochs, batch_size=batch_size, group_size=group_size, learning_rate=learning_rate,
        lora_rank=lora_rank, lora_alpha=lora_alpha, negatives=negatives, train_embeddings=train_embeddings,
        max_length=max_length, token_budget=token_budget, checkpoint_layers=checkpoint_layers,
        dtype=compute_dtype, seed=seed, evaluate_every=evaluate_every, save_every=save_every, **chosen,
    )  # fmt: skip
    if corpus is not None and negatives is None:
        raise InputError("--corpus is where hard negatives are taken from: add --negatives bm25 or model")
    texts = [str(row["text"]) for row in read_documents([str(corpus)], "auto")] if corpus else []
    try:
        target = train(
            data, output, model=model, dev=dev, corpus=texts, options=options, dtype=dtype, device=device,
            revision=revision, report=_report,
        )  # fmt: skip
    except (KeyboardInterrupt, SystemExit):
        typer.echo("mlx-rerank: interrupted; the same command goes on from the last complete step", err=True)
        raise
    typer.echo(f"wrote {target}", err=True)


def _losses(named: list[str]) -> dict[str, float]:
    """Return weights of losses from NAME or NAME=WEIGHT."""
    weights = {}
    for item in named:
        name, mark, weight = item.partition("=")
        if name in weights:
            raise InputError(f"--loss {item}: {name} has a weight already; name each loss once")
        try:
            weights[name] = float(weight) if mark else 1.0
        except ValueError:
            raise InputError(f"--loss {item}: the weight after = must be a number") from None
    return weights


def _report(record: dict[str, Any]) -> None:
    """Print where a run is."""
    from tqdm import tqdm

    names = {"loss": "loss", "dev_ndcg": "dev nDCG@10"}
    parts = [f"{name} {record[key]:.4f}" for key, name in names.items() if key in record]
    counted = [key for key in ("truncated_tokens", "skipped_steps") if record.get(key)]
    parts += [f"{record[key]} {key.replace('_', ' ')}" for key in counted]
    if parts:
        tqdm.write(f"step {record['step']}: {', '.join(parts)}", file=typer.get_text_stream("stderr"))
