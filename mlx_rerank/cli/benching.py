"""The commands that measure on the user's own machine: bench speed, memory, padding, roofline and serving."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from mlx_rerank.cli.options import Device, Dtype, MaxLength, Model

app = typer.Typer(name="bench", help="Measure on this machine.", no_args_is_help=True, rich_markup_mode=None)

Shape = Annotated[str | None, Option(help="Seeded weights of shape base, large or v2-m3 instead; for speed only.")]
Data = Annotated[Path | None, Option(help="Directory in the BEIR layout; the package's samples if none.")]
Rounds = Annotated[int, Option(min=1, help="How often everything is measured.")]
Output = Annotated[Path | None, Option(help="JSON file to write; bench-NAME-TIME.json here if none.")]
Threads = Annotated[int | None, Option(min=1, help="Of each process; the machine's cores.")]
Seed = Annotated[int, Option(min=0, help="Of what is chosen from the texts.")]


@app.command()
def speed(
    model: Model = "mini",
    shape: Shape = None,
    data: Data = None,
    rounds: Rounds = 3,
    threads: Threads = None,
    candidates: Annotated[str, Option(help="Of one query, at their own lengths.")] = "10,30,100",
    lengths: Annotated[str, Option(help="In tokens, to which texts are cut; 0 for none.")] = "32,128,512",
    tokens: Annotated[int, Option(min=1, help="About how many each of these lengths has in a round.")] = 4096,
    scaling: Annotated[str, Option(help="Candidates a call, for time per pair; 0 for none.")] = "100,1000",
    contender: Annotated[list[str] | None, Option(help="Who takes part; repeat it for several.")] = None,
    device: Device = None,
    max_length: MaxLength = None,
    seed: Seed = 0,
    output: Output = None,
    as_json: Annotated[bool, Option("--json", help="All of it on standard output; a file only with --output.")] = False,
) -> None:
    """Compare with other libraries: pairs and tokens a second, latency, cold start, and who agrees with PyTorch."""
    from mlx_rerank.bench.speed import Options, print_tables, run, sizes_of
    from mlx_rerank.cli.printing import print_json

    sizes = {"candidates": sizes_of(candidates), "lengths": sizes_of(lengths), "scaling": sizes_of(scaling)}
    options = Options(
        model=model, shape=shape, data=data, rounds=rounds, threads=threads or _cores(), tokens=tokens,
        contenders=tuple(contender or ()), device=device, max_length=max_length, seed=seed, **sizes,
    )  # fmt: skip
    path, facts = _path("speed", output), _about("speed", model, data, output)
    facts |= run(options)
    if as_json:
        print_json(facts)
    if output or not as_json:
        _finish(path, facts, (lambda _: None) if as_json else print_tables)
    died = [row for row in facts["contenders"] if not row["status"].startswith(("measured", "not installed"))]
    for row in died:
        typer.echo(f"mlx-rerank: {row['status']}", err=True)
    if died:
        raise typer.Exit(1)


@app.command()
def padding(
    data: Annotated[list[Path] | None, Argument(help="Directories in the BEIR layout; the samples if none.")] = None,
    model: Model = "mini",
    candidates: Annotated[int, Option(min=1, help="Of each query.")] = 100,
    queries: Annotated[int, Option(min=1, help="How many times so many candidates are drawn.")] = 20,
    max_length: MaxLength = None,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """Count the padding of mlx-rerank's batches, and of the usual ones, for several sets of texts."""
    from mlx_rerank.bench.padding import print_tables, run

    path, facts = _path("padding", output), _about("padding", model, *(data or ()), output)
    facts |= run(model, data or [None], candidates, queries, max_length, seed)
    _finish(path, facts, print_tables)


@app.command()
def memory(
    model: Model = "mini",
    data: Data = None,
    shapes: Annotated[int, Option(min=1, help="Batches, no two of the same rows and length.")] = 1000,
    warm_up: Annotated[int, Option(min=0, help="Batches before growth counts.")] = 200,
    tokens: Annotated[int, Option(min=1, help="Most of a batch, rows x length.")] = 1024,
    threads: Threads = None,
    device: Device = None,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """Measure memory: of each library with the model loaded, and mlx-rerank's over many shapes of batches."""
    from mlx_rerank.bench.memory import Options, print_tables, run

    path, facts = _path("memory", output), _about("memory", model, data, output)
    facts |= run(Options(model, data, shapes, warm_up, tokens, threads or _cores(), device, seed))
    _finish(path, facts, print_tables)


@app.command()
def roofline(
    model: Model = "mini",
    shape: Shape = None,
    data: Data = None,
    candidates: Annotated[int, Option(min=1, help="Of one query, at their own lengths.")] = 100,
    rounds: Rounds = 5,
    dtype: Dtype = None,
    device: Device = None,
    max_length: MaxLength = None,
    tflops: Annotated[float | None, Option(help="Of a chip to predict for, in the dtype, in 1e12 a second.")] = None,
    bandwidth: Annotated[float | None, Option(help="Of the same chip's memory, in 1e9 bytes a second.")] = None,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """Say how near a run comes to what this machine's matrix products and memory allow; predict for another chip."""
    from mlx_rerank.bench.roofline import Options, print_tables, run

    path, facts = _path("roofline", output), _about("roofline", model, data, output)
    chip = None if tflops is None and bandwidth is None else (tflops, bandwidth)
    facts |= run(Options(model, shape, data, candidates, rounds, dtype, device, max_length, seed), chip)
    _finish(path, facts, print_tables)


@app.command()
def serving(
    model: Model = "mini",
    data: Data = None,
    length: Annotated[int, Option(min=8, help="Of every pair, in tokens.")] = 32,
    requests: Annotated[int, Option(min=1, help="That library and server are compared on.")] = 20,
    rounds: Rounds = 3,
    clients: Annotated[int, Option(min=1, help="At once, under load.")] = 64,
    seconds: Annotated[float, Option(min=1, help="Of load.")] = 60.0,
    threads: Threads = None,
    device: Device = None,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """Compare the server's throughput with the library's, and put it under load."""
    from mlx_rerank.bench.serving import Options, print_tables, run

    path, facts = _path("serving", output), _about("serving", model, data, output)
    facts |= run(Options(model, data, length, requests, rounds, clients, seconds, threads or _cores(), device, seed))
    _finish(path, facts, print_tables)


def _cores() -> int:
    """Return the cores that this process may use; MLX is imported only where they are asked for."""
    from mlx_rerank.device.cores import cores

    return cores()


def _path(kind: str, output: Path | None) -> Path:
    """Return where the JSON file goes, checked before anything that takes long."""
    from mlx_rerank.bench.report import output_path

    return output_path(kind, output)


def _about(kind: str, model: str, *places: Path | None) -> dict[str, Any]:
    """Return facts about the run, with a command that a reader may repeat, without this machine's paths."""
    from mlx_rerank.bench.report import about
    from mlx_rerank.checkpoints.hub import public_name
    from mlx_rerank.device import kernels

    kernels.warn_if_missing()
    words = sys.argv[1:]
    for place in (model, *filter(None, places)):
        words = [word.removesuffix(str(place)) + public_name(place) if _names(word, place) else word for word in words]
    return about(kind, shlex.join(["mlx-rerank", *words]))


def _names(word: str, place: str | Path) -> bool:
    """Tell whether a word of the command is a place, or an option with it."""
    return word == str(place) or (word.startswith("--") and word.endswith(f"={place}"))


def _finish(path: Path, facts: dict[str, Any], print_tables: Any) -> None:
    """Write the file, then print the tables."""
    from mlx_rerank.bench.report import write

    write(path, facts)
    print_tables(facts)
    typer.echo(f"wrote {path}", err=True)
