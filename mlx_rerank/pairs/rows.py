"""Rows of a text: JSON values, or records of a table, each with the place that an error about it names."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlx_rerank.errors import InputError
from mlx_rerank.pairs.tables import read_table

InputFormat = Literal["auto", "lines", "json", "jsonl", "csv", "tsv", "files"]
_BY_NAME: dict[str, InputFormat] = {
    ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv",
}  # fmt: skip
_PLAIN = (".txt", ".text", ".md")  # names of texts, in which a line may begin with a bracket or be quoted
_OBJECT = re.compile(r"\s*\[?\s*\{\s*[\"'}]")  # what only JSON begins with, or what was meant to be JSON
_LIST = re.compile(r"\s*\[\s*[\"'\[\]]")


@dataclass(frozen=True)
class Row:
    """A row of a file.

    Args:
        where: the file, and the line or the place in an array.
        value: a JSON value; of a table, an object of texts by the names of its columns.
    """

    where: str
    value: Any


def form_of(name: str, text: str, known: Sequence[str]) -> InputFormat:
    """Return how a text is to be read: by the file's name, or else by what it says.

    Args:
        name: of the file.
        text: what it holds.
        known: names of columns by which a headline is known.
    """
    by_name = form_by_name(name)
    if by_name != "auto":
        return by_name
    plain = name.lower().endswith(_PLAIN)
    if _OBJECT.match(text) or (not plain and _LIST.match(text)):
        return "json"
    if text.lstrip()[:1] in ("{", "[", '"') and not (plain and text.lstrip().startswith('"')):
        try:
            _ = list(read_json(name, text))
        except InputError:
            return "lines"
        return "json"
    table = read_table(name, text, known)
    return "lines" if table is None else "tsv" if table.delimiter == "\t" else "csv"


def form_by_name(name: str) -> InputFormat:
    """Return the form that the end of a file's name tells; "auto" if none."""
    return _BY_NAME.get(Path(name).suffix.lower(), "auto")


def read_json(name: str, text: str) -> Iterator[Row]:
    """Yield the elements of a JSON array, or values that follow one another, as in JSON lines.

    Raises:
        InputError: something is not JSON, or an array comes with other values.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # which JSON has between values only
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    found: list[Row] = []
    place, line, counted = _skip(text, 0), 1, 0
    while place < len(text):
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}:{line} is not JSON: {error}") from error
        found.append(Row(f"{name}:{line}", value))
        place = _skip(text, place)
    if len(found) == 1 and isinstance(found[0].value, list):
        return iter([Row(f"{name}[{i}]", value) for i, value in enumerate(found[0].value)])
    return iter(found)


def lines_of(text: str) -> list[str]:
    """Return the lines that are not blank. Only LF, CRLF or CR ends a line: a text may hold other separators."""
    return [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]


def _skip(text: str, place: int) -> int:
    """Return the next place that is not blank."""
    while place < len(text) and text[place] in " \t\n\r":
        place += 1
    return place


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python reads but JSON does not have."""
    raise ValueError(f"{name} is not a JSON value")
