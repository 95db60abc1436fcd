"""What the command line reads: documents as lines, JSON lines or files, and pairs as JSON lines or tab-separated."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mlx_rerank.errors import InputError

InputFormat = Literal["auto", "lines", "jsonl", "files"]


def read_documents(paths: Sequence[str], form: InputFormat) -> list[Mapping[str, Any]]:
    """Read documents, each a mapping with `text` and, where there is one, `id`.

    Args:
        paths: files, or "-" for standard input; no path at all means standard input too.
        form: "lines" (a document a line), "jsonl" (an object a line, with `text` and perhaps `id`), "files" (each path
            is a document; "-" reads their names), or "auto": several paths are files; what starts with ``{`` or is
            named .jsonl is jsonl; all else is lines.

    Raises:
        InputError: a file cannot be read, or a line is not what the form says.
    """
    names = list(paths) or ["-"]
    if form == "files" or (form == "auto" and len(names) > 1):
        if names == ["-"]:
            names = _lines(read_text("-"))
        return [{"id": name, "text": read_text(name)} for name in names]
    documents = []
    for name in names:
        text = read_text(name)
        looks_json = name.endswith((".jsonl", ".ndjson")) or text.lstrip().startswith("{")
        if form == "jsonl" or (form == "auto" and looks_json):
            documents += [_document(row, f"{name}:{number}") for number, row in _json_lines(text, name)]
        else:
            documents += [{"text": line} for line in _lines(text)]
    return documents


def read_pairs(path: str) -> list[tuple[str, str]]:
    """Read (query, document) pairs: an object a line with these two keys, or two texts a line with a tab between.

    Raises:
        InputError: the file cannot be read, or a line holds no pair; it names the line.
    """
    text = read_text(path)
    if text.lstrip().startswith("{"):
        rows = [(number, [row.get("query"), row.get("document")]) for number, row in _json_lines(text, path)]
    else:
        rows = [
            (number, line.rstrip("\r").split("\t")) for number, line in enumerate(text.split("\n"), 1) if line.strip()
        ]
    pairs = []
    for number, row in rows:
        if len(row) != 2 or not all(isinstance(part, str) for part in row):
            raise InputError(
                f"{path}:{number} is not a pair: write query and document with a tab between, "
                'or {"query": "...", "document": "..."}'
            )
        pairs.append(tuple(row))
    return pairs


def read_text(path: str) -> str:
    """Return the text of a file, or of standard input for "-".

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}") from error


def _lines(text: str) -> list[str]:
    """Return the lines that are not blank. Only line feeds end a line: a text may hold other separators."""
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def _json_lines(text: str, name: str) -> list[tuple[int, dict[str, Any]]]:
    """Return (line number, object) of every line that is not blank."""
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}:{number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise InputError(f"{name}:{number} is a JSON {type(row).__name__}, not an object")
        rows.append((number, row))
    return rows


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python reads but JSON does not have."""
    raise ValueError(f"{name} is not a JSON value")


def _document(row: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a row that has a `text`; `_id`, as in BEIR's files, counts as `id`."""
    if not isinstance(row.get("text"), str):
        raise InputError(f"{where} has no text under 'text'; its keys are {sorted(row)}")
    return {"id": row["_id"], **row} if "_id" in row else row
