"""What each dtype and each packing costs: size, memory, distance from PyTorch in float32, and nDCG@10 on public sets.

    python benchmarks/quality.py MODEL DATA

MODEL is a Hugging Face checkpoint in full precision, DATA a directory of test sets in the BEIR layout. Every variant is
converted by the real converter and scored by the real Reranker, each in a process of its own. Packed weights are
unpacked on a CPU and computed in float32, so that there a packed row shows what the packing alone costs. Logits are
kept in the work directory query by query, under the model's name: a run that was interrupted goes on where it stopped.
Give another one after a change of the converter.

With --cascade FIRST, a second table says what the model FIRST, as it is, saves and costs as a first stage of the
first of the variants.
"""

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cascade
import numpy as np
from relevance import Run, Task, bm25, counts, ndcg, read_tasks

from mlx_rerank.checkpoints.hub import public_name
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.proof.fidelity import compare

REFERENCE, AS_IS, EMBEDDINGS = "reference", "as is", Quantization(32, 4, "affine")
PACKINGS = {  # of the encoder; the embeddings are packed to 4 bits in groups of 32 beside each
    "8-bit": Quantization(64, 8, "affine"),
    "6-bit": Quantization(64, 6, "affine"),
    "5-bit": Quantization(64, 5, "affine"),
    "4-bit": Quantization(64, 4, "affine"),
    "4-bit g32": Quantization(32, 4, "affine"),
    "3-bit": Quantization(64, 3, "affine"),
    "2-bit": Quantization(64, 2, "affine"),
    "mxfp8": Quantization(32, 8, "mxfp8"),
    "nvfp4": Quantization(16, 4, "nvfp4"),
    "mxfp4": Quantization(32, 4, "mxfp4"),
}
MEASURED = {"auto 5.5": 5.5, "auto 5": 5.0, "auto 4.5": 4.5}  # bits a weight, embeddings included
DTYPES = ("float32", "float16", "bfloat16")
QUERIES_AT_A_TIME = 10


@dataclass(frozen=True)
class Settings:
    """What a job needs to know, in a form that travels to another process."""

    model: str
    data: str
    work: str
    sets: tuple[str, ...]
    queries: dict[str, int]
    depth: dict[str, int]
    max_length: int

    @property
    def kept(self) -> Path:
        """Where this model's conversions and logits are."""
        return Path(self.work) / public_name(self.model).replace("/", "--")

    def tasks(self) -> list[Task]:
        """Read the test sets."""
        return read_tasks(Path(self.data), self.sets, self.queries, self.depth)


def measure(settings: Settings, variant: str) -> tuple[str, dict[str, Any]]:
    """Convert, load and score one variant, and return it with its size, its memory and what it had yet to score."""
    facts, scorer = _scorer(settings, variant)
    pairs = 0
    for task in settings.tasks():
        path = _logits_path(settings, variant, task)
        done = _read_logits(path)
        waiting = [query for query in task.first_stage if query not in done]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.truncate(sum(len(line) for line in _whole_lines(path)))
            for start in range(0, len(waiting), QUERIES_AT_A_TIME):
                chosen = waiting[start : start + QUERIES_AT_A_TIME]
                for query, logits in _score(scorer, task, chosen):
                    pairs += len(logits)
                    file.write(json.dumps({"query": query, "logits": logits}) + "\n")
                file.flush()
    return variant, {**facts, "scored_in_this_run": pairs}


def _score(scorer: Any, task: Task, queries: list[str]) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each query's logits by document, from pairs that were scored together, the longest first."""
    keys = [(query, document) for query in queries for document in task.first_stage[query]]
    keys.sort(key=lambda key: -len(task.documents[key[1]]))
    logits = scorer([(task.queries[query], task.documents[document]) for query, document in keys])
    found: dict[str, dict[str, float]] = {query: {} for query in queries}
    for (query, document), logit in zip(keys, logits.tolist(), strict=True):
        found[query][document] = logit
    yield from found.items()


def _scorer(settings: Settings, variant: str) -> tuple[dict[str, Any], Any]:
    """Return facts about a variant, and what turns pairs into logits."""
    if variant == REFERENCE:
        from mlx_rerank.checkpoints.hub import resolve
        from mlx_rerank.proof.reference import ReferenceReranker

        reference = ReferenceReranker(resolve(settings.model), max_length=settings.max_length)
        return {}, lambda pairs: reference.logits(pairs, batch_size=32).logits
    from mlx_rerank import Reranker

    if variant == AS_IS:
        reranker = Reranker(settings.model, max_length=settings.max_length)
        return {"computed_in": reranker.dtype}, lambda pairs: reranker.logits(pairs, show_progress=False).logits
    directory = settings.kept / "models" / variant.replace(" ", "-")
    if not directory.exists():
        _convert(settings.model, directory, variant)
    facts: dict[str, Any] = {
        "bytes": (directory / "model.safetensors").stat().st_size,
        "resident_bytes": _resident(directory),
    }
    dtype = variant if variant in DTYPES else None
    reranker = Reranker(directory, dtype=dtype, max_length=settings.max_length)
    facts["computed_in"] = reranker.dtype
    return facts, lambda pairs: reranker.logits(pairs, show_progress=False).logits


def _convert(model: str, directory: Path, variant: str) -> None:
    """Write one variant with the package's converter."""
    from mlx_rerank.convert import convert

    if variant in DTYPES:
        convert(model, directory, dtype=variant)
    elif variant in MEASURED:
        convert(model, directory, target_bits=MEASURED[variant])
    else:
        convert(model, directory, layers=PACKINGS[variant], embeddings=EMBEDDINGS)


def _resident(directory: Path) -> int:
    """Return the bytes that MLX holds once the model is loaded, packed weights kept packed as on a GPU."""
    import mlx.core as mx

    from mlx_rerank.checkpoints.checkpoint import Checkpoint
    from mlx_rerank.dtypes import parse_dtype

    checkpoint = Checkpoint.open(directory)
    before = mx.get_active_memory()
    model = checkpoint.load(parse_dtype(checkpoint.raw["dtype"]), keep_quantized=True)
    size = mx.get_active_memory() - before
    del model
    mx.clear_cache()
    return size


def results(settings: Settings, tasks: list[Task], facts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return each variant's facts, its distance from the reference, and nDCG@10 by task and by set."""
    rows: dict[str, dict[str, Any]] = {"BM25": {"ndcg": _ndcg(tasks, {t.name: _bm25(t) for t in tasks})}}
    expected = {task.name: _run(settings, REFERENCE, task) for task in tasks} if REFERENCE in facts else {}
    keys = [(name, q, d) for name, run in expected.items() for q, found in run.items() for d in found]
    for variant, known in facts.items():
        runs = {task.name: _run(settings, variant, task) for task in tasks}
        rows[variant] = {**known, "ndcg": _ndcg(tasks, runs)}
        if variant != REFERENCE and expected:
            near, far = (np.array([source[task][q][d] for task, q, d in keys]) for source in (runs, expected))
            rows[variant]["fidelity"] = asdict(compare(near, far, [(task, q) for task, q, _ in keys]))
    return rows


def _bm25(task: Task) -> Run:
    """Return BM25's own ranking: of all documents or, across languages, of the candidates that share a term at all."""
    if task.language:
        return bm25(task.queries, task.documents, task.language)
    found = bm25(task.queries, task.documents, None, top=len(task.documents))
    return {q: {d: s for d, s in of_query.items() if d in task.first_stage[q]} for q, of_query in found.items()}


def _ndcg(tasks: list[Task], runs: dict[str, Run]) -> dict[str, float]:
    """Return nDCG@10 by task, and by set where a set has several."""
    found = {task.name: ndcg(task, runs[task.name]) for task in tasks if runs[task.name]}
    for group in dict.fromkeys(task.group for task in tasks):
        of_group = [found[task.name] for task in tasks if task.group == group and task.name in found]
        if of_group:
            found[group] = float(np.mean(of_group))
    return found


def _run(settings: Settings, variant: str, task: Task) -> Run:
    """Return the logits of the task's queries and candidates."""
    kept = _read_logits(_logits_path(settings, variant, task))
    return {q: {d: kept[q][d] for d in candidates} for q, candidates in task.first_stage.items()}


def _logits_path(settings: Settings, variant: str, task: Task) -> Path:
    """Return where a variant's logits of a task are kept."""
    depth = max(map(len, task.first_stage.values()))
    name = f"{task.name} {settings.max_length} tokens, {depth} candidates.jsonl"
    return settings.kept / "logits" / variant.replace(" ", "-") / name.replace(" ", "-")


def _read_logits(path: Path) -> dict[str, dict[str, float]]:
    """Read logits by query and document."""
    rows = map(json.loads, _whole_lines(path))
    return {row["query"]: row["logits"] for row in rows}


def _whole_lines(path: Path) -> list[bytes]:
    """Return the lines of a file that were written to their end."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return [line for line in lines if line.endswith(b"\n")]


def table(rows: dict[str, dict[str, Any]], groups: list[str]) -> str:
    """Return a Markdown table."""
    lines = [
        "| variant | MB on disk | MB resident | mean, max abs. delta logit | tau | top-10 overlap | "
        + " | ".join(f"nDCG@10 {group}" for group in groups)
        + " |",
        "|---" * (6 + len(groups)) + "|",
    ]
    base = rows.get(REFERENCE, {}).get("ndcg", {})
    for name, row in rows.items():
        cells = [name, *(f"{row[key] / 1e6:.1f}" if key in row else "" for key in ("bytes", "resident_bytes"))]
        near = row.get("fidelity")
        cells += [f"{near['mean_logit']:.2g}, {near['max_logit']:.2g}"] if near else [""]
        shares = [near[key] for key in ("tau", "top10_overlap")] if near else [None, None]
        cells += ["" if share is None else f"{share:.4f}" for share in shares]
        for group in groups:
            value, origin = row["ndcg"].get(group), base.get(group)
            delta = f" ({value - origin:+.4f})" if near and value is not None and origin is not None else ""
            cells.append("" if value is None else f"{value:.4f}{delta}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a hub id or a Hugging Face directory")
    parser.add_argument("data", help="directory of test sets")
    parser.add_argument("--sets", nargs="+", default=["scifact_test", "xquad_r", "xquad"])
    parser.add_argument("--queries", nargs="*", default=[], metavar="SET=N", help="of a set, or of each language")
    parser.add_argument("--depth", nargs="*", default=[], metavar="SET=N", help="candidates a query; 100")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--variants", nargs="+", default=[REFERENCE, *DTYPES, *PACKINGS, *MEASURED])
    parser.add_argument("--cascade", metavar="FIRST", help="a model to measure as first stage of the first variant")
    parser.add_argument("--keep", type=int, nargs="+", default=[5, 10, 20, 50], help="candidates that it keeps")
    parser.add_argument("--processes", type=int, default=1, help="variants measured side by side")
    parser.add_argument("--work", default="quality-work", help="where models and logits are kept")
    parser.add_argument("--out", default="quality.json")
    given = parser.parse_args()
    queries, depth = ({k: int(n) for k, n in (i.split("=") for i in items)} for items in (given.queries, given.depth))
    settings = Settings(given.model, given.data, given.work, tuple(given.sets), queries, depth, given.max_length)
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # MLX's products and torch's
        os.environ.setdefault(name, str(max(1, (os.cpu_count() or 1) // given.processes)))
    facts: dict[str, dict[str, Any]] = {}
    first = replace(settings, model=given.cascade) if given.cascade else None
    with get_context("spawn").Pool(given.processes, maxtasksperchild=1) as pool:
        for variant, found in pool.imap_unordered(partial(measure, settings), given.variants):
            facts[variant] = found
            print(f"{variant}: {found}", file=sys.stderr, flush=True)
        if first:
            pool.apply(measure, (first, AS_IS))
    tasks = settings.tasks()
    rows = results(settings, tasks, {variant: facts[variant] for variant in given.variants})
    about = {
        "command": _command(sys.argv[1:], given),
        "model": public_name(settings.model),
        "sets": counts(tasks),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {n: version(n) for n in ("mlx-rerank", "mlx", "mlx-lm", "torch", "bm25s", "ir-measures")},
    }
    stages = _cascade(first, settings, given.variants[0], tasks, given.keep) if first else {}
    Path(given.out).write_text(json.dumps({**about, "rows": rows, **stages}, indent=2) + "\n", encoding="utf-8")
    print(table(rows, list(dict.fromkeys(task.group for task in tasks))))
    if stages:
        print("\n" + cascade.table(stages["cascade"]["rows"]))


def _cascade(first: Settings, strong: Settings, variant: str, tasks: list[Task], keep: list[int]) -> dict[str, Any]:
    """Return what a first stage before a variant of the model comes to."""
    both = (
        cascade.Stage.of(each.model, tasks, {task.name: _run(each, name, task) for task in tasks}, each.max_length)
        for each, name in ((first, AS_IS), (strong, variant))
    )
    return {"cascade": {"first": public_name(first.model), "rows": cascade.measure(tasks, *both, keeps=keep)}}


def _command(arguments: list[str], given: argparse.Namespace) -> str:
    """Return the command as a reader may repeat it, without the paths of this machine."""
    paths = {given.model: "MODEL", given.data: "DATA", given.work: "WORK", given.out: "OUT", given.cascade: "FIRST"}
    return shlex.join(["python", "benchmarks/quality.py", *(paths.get(argument, argument) for argument in arguments)])


if __name__ == "__main__":
    main()
