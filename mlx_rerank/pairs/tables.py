"""Tables as text: CSV with commas, semicolons or bars, and TSV; with a headline or without."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlx_rerank.errors import InputError

_DELIMITERS = (",", ";", "\t", "|")
_LONGEST_NAME, _LONGEST_QUESTION = 40, 100  # characters of a column's name; of one in a survey's answers

Record = tuple[int, list[str]]  # the line that it ends on, and its fields


@dataclass(frozen=True)
class Table:
    """Records, and the names of their columns.

    Args:
        delimiter: what stands between fields.
        headline: names of the columns; None if the first record has no known name.
        records: all but the headline.
    """

    delimiter: str
    headline: list[str] | None
    records: list[Record]


def read_table(name: str, text: str, known: Sequence[str]) -> Table | None:
    """Return a table if the text begins with a headline of several columns, known or alike.

    Args:
        name: of the file.
        text: what it holds.
        known: names in small letters.
    """
    for delimiter in _DELIMITERS:
        try:
            first = next(iter(_records(name, text, delimiter, only_first=True)), None)
            if first is None or len(first[1]) < 2 or not _are_names(first[1]):
                continue
            records = _records(name, text, delimiter)
        except InputError:
            continue
        known_or_like = _is_headline(first[1], known) or looks_headed(records)
        if known_or_like and len(records) > 1 and all(len(fields) == len(first[1]) for _, fields in records):
            return Table(delimiter, first[1], records[1:])
    return None


def parse_table(name: str, text: str, known: Sequence[str], delimiters: Sequence[str] = _DELIMITERS) -> Table:
    """Return a text that is a table, with what stands between its fields found out.

    Args:
        name: of the file, for errors.
        text: what it holds.
        known: names in small letters by which a headline is known.
        delimiters: those that may stand between fields.

    Raises:
        InputError: the quotes are not closed, or two ways to split the records are as good.
    """
    firsts = _ways(name, text, delimiters, only_first=True)
    headed = [mark for mark, first in firsts.items() if first and _is_headline(first[0][1], known)]
    if headed:
        delimiter = max(headed, key=lambda mark: len(firsts[mark][0][1]))
        records = _records(name, text, delimiter)
        if not records:
            return Table(delimiter, None, [])
        headline = [field.strip() for field in records[0][1]]
        if len(set(named := [field for field in headline if field])) < len(named):
            raise InputError(f"{name} has two columns of one name: {headline}")
        for line, fields in records[1:]:
            if len(fields) > len(headline):
                raise InputError(f"{name}:{line} has more fields than the headline: quote texts")
        return Table(delimiter, headline, records[1:])
    return _without_headline(name, text, delimiters)


def _without_headline(name: str, text: str, delimiters: Sequence[str]) -> Table:
    """Return records that all have one number of fields."""
    ways = _ways(name, text, delimiters)
    even = {mark: records for mark, records in ways.items() if len({len(fields) for _, fields in records}) == 1}
    wide = {mark: records for mark, records in even.items() if len(records[0][1]) > 1}
    if len(wide) > 1:
        raise InputError(
            f"{name} may have {' or '.join(map(repr, wide))} between fields: write a headline, such as id;text"
        )
    if not wide and any(len(fields) > 1 for records in ways.values() for _, fields in records):
        raise InputError(f"{name} has no headline, and records of different numbers of fields: quote texts")
    delimiter, records = next(iter((wide or even or ways).items()))
    return Table(delimiter, None, records)


def _ways(name: str, text: str, delimiters: Sequence[str], *, only_first: bool = False) -> dict[str, list[Record]]:
    """Return the records by what stands between fields, where quotes agree with it."""
    ways, refusal = {}, None
    for delimiter in delimiters:
        try:
            ways[delimiter] = _records(name, text, delimiter, only_first=only_first)
        except InputError as error:  # noqa: PERF203 - four at most
            refusal = refusal or error
    if refusal and not ways:
        raise refusal
    return ways


def looks_headed(records: Sequence[Record]) -> bool:
    """Tell whether the first of several records alone is of single words, like names of columns that are not known."""
    alike = [
        _are_names(fields) and all(re.fullmatch(r"[^\W\d]\S*(?<![.:])", field) for field in fields)
        for _, fields in records
    ]
    return len(records) > 1 and alike[0] and not any(alike[1:])


def _records(name: str, text: str, delimiter: str, *, only_first: bool = False) -> list[Record]:
    """Return records that are not blank. A table with tabs need not quote: a quote may be a letter there."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # no field is longer; 131,072 letters are the default
    if delimiter == "\t":
        lines = enumerate(re.split(r"\r\n|\n|\r", text), 1)
        plain = [(number, [*map(_unquoted, line.split("\t"))]) for number, line in lines if line.strip()]
        if len({len(fields) for _, fields in plain}) == 1:
            return plain[:1] if only_first else plain
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found: list[Record] = []
    try:
        for fields in reader:
            if any(field.strip() for field in fields) or len(fields) > 1:
                found.append((reader.line_num, fields))
                if only_first:
                    break
    except csv.Error as error:
        raise InputError(
            f"{name} cannot be read: line {reader.line_num}: {error}: double the quotes in a text"
        ) from error
    return found


def _unquoted(field: str) -> str:
    """Return a field without the quotes around it, if it was written with such."""
    inner = field[1:-1]
    written = len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if written else field


def _is_headline(fields: Iterable[str], known: Sequence[str]) -> bool:
    """Tell whether one of some fields is a known name."""
    fields = [field.strip().lower() for field in fields]
    return any(field in known for field in fields) and max(map(len, fields)) <= _LONGEST_QUESTION


def _are_names(fields: Sequence[str]) -> bool:
    """Tell whether all fields look like names of columns: short, of few words, with no mark of a sentence."""
    return all(
        len(field) <= _LONGEST_NAME
        and len(field.split()) <= 3
        and field == field.strip()
        and not set(field) & set("!?,;。！？")
        for field in fields
    )
