"""How results look: text on a terminal, JSON lines for programs."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mlx_rerank.errors import printable

if TYPE_CHECKING:
    from mlx_rerank.device.memory import Usage
    from mlx_rerank.models.family import Family
    from mlx_rerank.proof.audit import Cell
    from mlx_rerank.proof.verification import Verification
    from mlx_rerank.scoring.results import RankedDocument

_BAR = 12  # characters
_SHOWN = 1000  # characters of a document, more than a line holds


def print_ranking(ranking: "Sequence[RankedDocument]", *, as_json: bool, raw_scores: bool) -> None:
    """Print a ranking.

    Args:
        ranking: the best first.
        as_json: JSON lines even on a terminal.
        raw_scores: scores are logits, so that bars are drawn relative to the range found.
    """
    if as_json or not sys.stdout.isatty():
        for rank, result in enumerate(ranking, 1):
            print_json({"rank": rank, "index": result.index, "score": result.score, **_fields(result)})
        return
    _print_table(ranking, _shares([result.score for result in ranking], raw_scores))


def _print_table(ranking: "Sequence[RankedDocument]", shares: Sequence[float]) -> None:
    """Print a table as wide as the terminal, in which the documents get what the other columns leave."""
    from rich.console import Console
    from rich.table import Table

    rows = [_fields(result) for result in ranking]
    named, cut = any("id" in row for row in rows), any(row["truncated_tokens"] for row in rows)
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("", justify="right", style="dim", min_width=2)
    table.add_column("score", justify="right", min_width=max((len(f"{r.score:.4f}") for r in ranking), default=0))
    table.add_column("", min_width=_BAR)
    if named:
        table.add_column("id", style="cyan", overflow="ellipsis", no_wrap=True, max_width=24)
    table.add_column("document", overflow="ellipsis", no_wrap=True, ratio=1)
    if cut:
        table.add_column("unread", justify="right", style="dim", min_width=6)  # tokens
    for rank, (result, row, share) in enumerate(zip(ranking, rows, shares, strict=True), 1):
        cells = [str(rank), f"{result.score:.4f}", _bar(share)]
        cells += [_plain(str(row.get("id", result.index)))] if named else []
        begin = result.span[0]  # of what was read, or of the best window
        cells += [_plain(("… " if begin else "") + row["text"][begin : begin + _SHOWN])]
        cells += [str(row["truncated_tokens"] or "")] if cut else []
        table.add_row(*cells)
    Console().print(table)


def print_audit(cells: "Sequence[Cell]", *, as_json: bool) -> None:
    """Print the audit of a checkpoint: a line for each way to run it and for each cause, and what is allowed."""
    from mlx_rerank.dtypes import FLOAT32_INSIDE

    for cell in cells:
        found, form = cell.report, "packed" if cell.packed else "unpacked"
        if as_json:
            way = {"dtype": cell.dtype, "packed": cell.packed, "mapped": cell.mapped, "padded": cell.padded}
            print_json({**way, **asdict(found)})
            continue
        batch = "padded" if cell.padded else "equal lengths"
        counts = f"{found.operations:>5} operations, {len(found.violations)} violations"
        print(f"{cell.dtype:<10}{form:<10}{batch:<14}{'mapped' if cell.mapped else 'resident':<9}{counts}")
        for violation in found.violations:
            print(f"  {violation}")
    if not as_json:
        print("float32 inside on purpose, and back in the dtype with the result:")
        for name, calls in cells[0].report.float32_inside.items():
            if calls:
                print(f"  {name} ({calls} calls): {FLOAT32_INSIDE[name]}")


def print_models(families: "Sequence[Family]") -> None:
    """Print a line for every known model, below its family; what is not known is a dash."""
    for family in families:
        print(f"{family.title} ({family.name}), such as {family.example}")
        for known in family.known:
            size = "-" if known.parameters is None else f"{known.parameters:,} million"
            tokens = "-" if known.longest_pair is None else f"{known.longest_pair:,} tokens"
            words = f"{size:>14}{tokens:>15}  {known.licence or '-':<20}  {known.languages or '-'}"
            print(f"  {known.repository:<50}{words}" + (f"; {known.special}" if known.special else ""))


def print_report(report: "Verification", *, as_json: bool) -> None:
    """Print a parity report as lines, or as one JSON object."""
    if as_json:
        print_json(report.to_dict())
        return
    for name, value in report.rows():
        print(f"{name:<20}{printable(value)}")


def print_usage(usage: "Usage", seconds: float, pairs: int, tokens: int | None) -> None:
    """Print to standard error what was scored, how long that took, and what memory it needed."""
    counted = f"{pairs} pairs" + ("" if tokens is None else f", {tokens} tokens")
    held = {
        "MLX": [(usage.mlx_active, "active"), (usage.mlx_peak, "peak")],
        "process": [(usage.process_resident, "resident"), (usage.process_peak, "peak")],
    }
    parts = [
        f"{owner} " + ", ".join(f"{size / 1e6:.1f} MB {what}" for size, what in sizes if size is not None)
        for owner, sizes in held.items()
    ]
    print("; ".join([f"{counted} in {seconds:.2f} s", *parts]), file=sys.stderr)


def print_json(row: Mapping[str, Any]) -> None:
    """Print one JSON object on a line of its own, in UTF-8 whatever the locale.

    What a terminal would act on is escaped, which json does for a part of it only.
    """
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    line = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    sys.stdout.buffer.write(line.encode() + b"\n")


def _fields(result: "RankedDocument") -> dict[str, Any]:
    """Return id (where there is one), text and truncated tokens of a result."""
    document = {"text": result.document} if isinstance(result.document, str) else result.document
    identity = {"id": document["id"]} if "id" in document else {}
    return {**identity, "text": document["text"], "truncated_tokens": result.truncated_tokens, "span": result.span}


def _shares(scores: Sequence[float], raw_scores: bool) -> list[float]:
    """Return the length of each bar, 0..1: the score itself, or a logit's place between the lowest and the highest."""
    if not raw_scores:
        return list(scores)
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [(score - low) / (high - low) if high > low else 1.0 for score in scores]


def _bar(share: float) -> str:
    """Draw a bar of blocks, in eighths of a character, greener the longer it is."""
    eighths = round(share * _BAR * 8)
    blocks = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
    return f"[{'green' if share >= 0.5 else 'yellow' if share >= 0.1 else 'red'}]{blocks}[/]"


def _plain(text: str) -> str:
    """Return a text on one line, with nothing in it that the terminal or the table would act on."""
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else " " for c in " ".join(text.split())))
