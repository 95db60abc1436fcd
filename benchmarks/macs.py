"""The table of results from Macs, from what their owners contributed.

    mlx-rerank bench speed --json > benchmarks/results/macs/m2-max-mini.json
    python benchmarks/macs.py            # writes docs/measured/macs.md

A file that is not such a result, or not from a Mac, is refused.
"""

import argparse
import html
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mlx_rerank.bench.contenders import OWN
from mlx_rerank.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "macs", ROOT / "docs" / "measured" / "macs.md"
_CHIP = r"Apple [AM]\d+( \w+)?"  # a virtual machine says so in another word
_SPREAD = {"median": float, "low": float, "high": float}
FORM = {  # of a result, as far as the page shows it or a reader needs it to judge a figure
    "benchmark": str,
    "command": str,
    "date": str,
    "machine": {"chip": str, "system": str, "memory_bytes": int, "load_average": list, "wheels": {"mlx": str}},
    "versions": {"mlx-rerank": str, "mlx": str},
    "model": str,
    "fingerprint": str,
    "settings": {"device": str, "max_length": int},
    "contenders": [{"name": str, "dtype": str, "device": str, "status": str}],
    "workloads": [{"name": str, "calls": int, "pairs": int, "tokens": int, "padded_tokens": int}],
    "summary": dict,
}
FIGURES = {"pairs_per_second": _SPREAD, "tokens_per_second": _SPREAD, "p50_seconds": float}
_COLUMNS = ("chip", "memory", "macOS", "model", "dtype", "device", "texts", "pairs/s", "tokens/s", "p50 ms", "file")
_INTRODUCTION = """# Measured on Macs

Results of `mlx-rerank bench speed --json` that owners of Macs contributed. This page is made from the files below
`benchmarks/results/macs` by `python benchmarks/macs.py`; no figure of it is written by
hand. A median stands before its lowest and highest round.

To contribute one, close what else is at work, run this, and add the file:

    mlx-rerank bench speed --json > CHIP-MODEL.json
"""


def read(path: Path) -> dict[str, Any]:
    """Return a result, checked.

    Raises:
        InputError: it is no JSON, not of a Mac, or lacks a field.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except ValueError as error:
        raise InputError(f"{path.name} is not JSON: {error}") from error
    missing = [*misfits(FORM, result)]
    if not missing:
        shown = [row["name"] for row in result["workloads"] if row["name"] in result["summary"]]
        form = {workload: {row["name"]: FIGURES for row in _own(result)} for workload in shown}
        missing = [*misfits(form, result["summary"], "summary.")]
        missing += [] if shown and _own(result) else [f"figures of {OWN}"]
    if missing:
        raise InputError(f"{path.name} lacks {', '.join(missing)}: write it with `mlx-rerank bench speed --json`")
    machine = result["machine"]
    if not re.fullmatch(r"macOS \d+(\.\d+)* arm64", machine["system"]) or not re.fullmatch(_CHIP, machine["chip"]):
        raise InputError(f"{path.name} is not from a Mac: {machine['chip']}, {machine['system']}")
    if result["benchmark"] != "speed":
        raise InputError(f"{path.name} is of `bench {result['benchmark']}`, not of `bench speed`")
    return result


def misfits(form: Any, value: Any, where: str = "") -> Iterator[str]:
    """Yield the names of what a value lacks, or has of another type than a form says."""
    if isinstance(form, dict):
        for name, part in form.items():
            if isinstance(value, dict) and name in value:
                yield from misfits(part, value[name], f"{where}{name}.")
            else:
                yield f"{where}{name}"
    elif isinstance(form, list):
        if not isinstance(value, list) or not value:
            yield where.removesuffix(".")
            return
        for i, item in enumerate(value):
            yield from misfits(form[0], item, f"{where}{i}.")
    elif not isinstance(value, int | float if form is float else form) or value in ("", []):
        yield where.removesuffix(".")


def page(paths: Iterable[Path]) -> str:
    """Return the page, in Markdown.

    Args:
        paths: of results, each of which has its rows.

    Raises:
        InputError: one of them is refused.
    """
    results = {path.name: read(path) for path in sorted(paths)}
    if not results:
        return f"{_INTRODUCTION}\nThere are none yet.\n"
    lines = [_row(_COLUMNS), _row(["---"] * len(_COLUMNS))]
    lines += [_row(row) for name, result in results.items() for row in _rows(name, result)]
    about = [line for name, result in results.items() for line in _about(name, result)]
    return "\n".join([_INTRODUCTION, *lines, "", "## The files", "", *about, ""])


def _rows(name: str, result: dict[str, Any]) -> Iterator[list[str]]:
    """Yield a row for each workload and each dtype of ours."""
    machine = result["machine"]
    for size in result["workloads"]:
        for contender in _own(result) if size["name"] in result["summary"] else ():
            found = result["summary"][size["name"]][contender["name"]]
            yield [
                machine["chip"], f"{machine['memory_bytes'] / 2**30:.0f} GB", machine["system"].split()[1],
                result["model"], contender["dtype"], contender["device"],
                f"{size['name']}: {size['pairs']} pairs, {size['tokens']} tokens",
                _spread(found["pairs_per_second"], 1), _spread(found["tokens_per_second"], 0),
                f"{found['p50_seconds'] * 1e3:.1f}", name,
            ]  # fmt: skip


def _own(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return ours among the contenders, as far as they were measured; one in another dtype has it in its name."""
    return [row for row in result["contenders"] if row["name"].split()[:1] == [OWN] and row["status"] == "measured"]


def _about(name: str, result: dict[str, Any]) -> Iterator[str]:
    """Yield what else a file says: when, with what, of which weights, and how to repeat it."""
    versions = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    wheels = ", ".join(f"{key} {value}" for key, value in result["machine"]["wheels"].items())
    load = result["machine"]["load_average"][0]
    yield _safe(f"- {name}: {result['date']}; {versions}; wheels {wheels}; load before the run {load};")
    yield _safe(f"  weights {result['fingerprint']}; {result['command']}")


def _spread(value: dict[str, float], digits: int) -> str:
    return f"{value['median']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_safe(cell) for cell in cells)} |"


def _safe(text: str) -> str:
    """Return a stranger's text on one line, without what Markdown would act on."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(" ".join(text.splitlines()), quote=False))


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number")


def main() -> None:
    """Write the page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    try:
        PAGE.write_text(page(RESULTS.glob("*.json")), encoding="utf-8")
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
