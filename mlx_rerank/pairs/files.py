"""What the command line reads: documents, pairs and rows of files, as lines, JSON or tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlx_rerank.errors import InputError
from mlx_rerank.pairs.decoding import read_text
from mlx_rerank.pairs.rows import InputFormat, Row, form_by_name, form_of, lines_of, read_json
from mlx_rerank.pairs.tables import looks_headed, parse_table

_TEXT = ("text",)  # which wins, as in the server
_TEXTS = ("content", "document", "passage", "body", "page_content")
_QUERIES = ("query", "question")
_LISTS = ("documents", "passages", "texts", "docs", "candidates")  # of an object, as in a request to the server
_HEADLINE = (*_TEXT, *_TEXTS, *_QUERIES, "answer", "title", "id", "_id")
_OTHERWISE = " (--format lines ranks its lines as they are, --format files the file as a whole)"
_PAIR = 'a pair: write query and document with a tab between, or {"query": "...", "document": "..."}'


def read_documents(
    paths: Sequence[str], form: InputFormat = "auto", column: str | None = None
) -> list[Mapping[str, Any]]:
    """Read documents, each a mapping with `text` and, where there is one, `id`.

    Args:
        paths: files, or "-" for standard input; no path at all means standard input too.
        form: "lines" (a document a line), "json" or "jsonl" (an array, or values that follow one another), "csv" or
            "tsv", "files" (each path is a document; "-" reads their names), or "auto": as a file's name or its content
            tells; of several files those whose names do not are a document each.
        column: the name, or in a table the number, of what holds the text; `text`, or else a name like it, if None.

    Raises:
        InputError: a file cannot be read, is not what the form says, or may be read in more than one way.
    """
    names = list(paths) or ["-"]
    if form == "files" and names == ["-"]:
        names = lines_of(read_text("-"))
        return [{"id": name, "text": read_text(name)} for name in names]
    if column is not None and form in ("lines", "files"):
        raise InputError(f"--column {column} is for objects and tables: leave it or --format {form} out")
    documents: list[Mapping[str, Any]] = []
    for name in names:
        text, own = read_text(name), form
        if form == "auto" and len(names) > 1 and column is None:
            own = form_by_name(name)
        elif form == "auto":
            own = form_of(name, text, _headline(column))
            own = "csv" if own == "lines" and column is not None else own
        if own in ("files", "auto"):
            documents.append({"id": name, "text": text})
        elif own == "lines":
            documents += [{"text": line} for line in lines_of(text)]
        else:
            try:
                documents += _documents(read_rows(name, text, own, _headline(column)), column)
            except InputError as error:
                raise InputError(f"{error}{_OTHERWISE if form == 'auto' else ''}") from None
    return documents


def read_document(path: str, form: InputFormat = "auto") -> str:
    """Read the one document of a file: all its text, or what is told of it in JSON or a table.

    Raises:
        InputError: the file cannot be read, or holds another number of documents.
    """
    text = read_text(path)
    form = form_of(path, text, _headline(None)) if form == "auto" else form
    if form in ("lines", "files"):
        found = [text]
    else:
        found = [row["text"] for row in _documents(read_rows(path, text, form, _headline(None)), None)]
    if len(found) != 1 or not found[0].strip():
        count = "no text" if found == [text] or not found else f"{len(found)} documents"
        raise InputError(f"{path} holds {count}: give one document; --format files reads a file as one")
    return found[0]


def read_pairs(path: str, form: InputFormat = "auto", columns: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Read (query, document) pairs: objects or arrays in JSON, or a table of two columns, or with such names.

    Args:
        path: a file, or "-" for standard input.
        form: as for `read_documents`, but for "lines" and "files".
        columns: names, or in a table numbers, of query and document; those usual for them if none.

    Raises:
        InputError: the file cannot be read, or a row holds no pair; it names the line.
    """
    if len(columns) not in (0, 2):
        raise InputError(f"--column is given twice, for query and document, and not {len(columns)} times")
    if form in ("lines", "files"):
        raise InputError(f"--format {form} is for documents: pairs are json, jsonl, csv or tsv")
    text = read_text(path)
    known = _headline(*columns)
    if form == "auto":
        form = form_of(path, text, known)
        form = "tsv" if form == "lines" else form
    if form == "tsv" and not any("\t" in line for line in lines_of(text)) and lines_of(text):
        raise InputError(f"{path}:1 is not {_PAIR}")
    pairs = []
    for row in read_rows(path, text, form, known):
        pairs += _pairs(row, columns)
    return pairs


def read_rows(name: str, text: str, form: InputFormat, known: Sequence[str]) -> list[Row]:
    """Return rows of JSON or of a table; columns without names are "1", "2" and so on, a single one "text".

    Args:
        name: of the file.
        text: what it holds.
        form: "json", "jsonl", "csv" or "tsv".
        known: names in small letters by which a headline is known.

    Raises:
        InputError: it is not what the form says.
    """
    if form in ("json", "jsonl"):
        return list(read_json(name, text))
    table = parse_table(name, text, known, *[("\t",)] * (form == "tsv"))
    rows = []
    if table.headline is None and looks_headed(table.records) and not any(item.isdigit() for item in known):
        first = table.records[0][1]
        raise InputError(
            f"{name} may begin with a headline, {first}: choose with --column NAME, or, if it is none, --column NUMBER"
        )
    for line, fields in table.records:
        keys = table.headline or (["text"] if len(fields) == 1 else [str(i + 1) for i in range(len(fields))])
        rows.append(Row(f"{name}:{line}", dict(zip(keys, fields, strict=False))))
    return rows


def _headline(*columns: str | None) -> tuple[str, ...]:
    """Return the names by which a headline is known: the usual ones, and those asked for."""
    return (*_HEADLINE, *(column.strip().lower() for column in columns if column))


def _documents(rows: Sequence[Row], column: str | None) -> Iterator[Mapping[str, Any]]:
    """Yield documents of rows; a list in an object, as in a request to the server, is taken apart."""
    for row in rows:
        value = row.value
        if isinstance(value, str):
            yield {"text": value}
            continue
        if not isinstance(value, dict):
            raise InputError(f"{row.where} is a JSON {type(value).__name__}, not an object or a text")
        listed = None if column or _find(value, _TEXT) else _listed(row)
        if listed is not None:
            yield from _documents(listed, None)
            continue
        text = value[_column(row, column, _TEXT, _TEXTS, "text")]
        identity = next((value[key] for key in value if key.strip().lower() in ("_id", "id")), None)
        yield ({} if identity is None else {"id": identity}) | value | {"text": text}


def _listed(row: Row) -> list[Row] | None:
    """Return the elements of the one list of documents that an object has."""
    key = next((key for key in _LISTS if isinstance(row.value.get(key), list)), None)
    return None if key is None else [Row(f"{row.where} {key}[{i}]", item) for i, item in enumerate(row.value[key])]


def _pairs(row: Row, columns: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pair of a row, or the pairs of a query with a list of documents."""
    value = row.value
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return [(value[0], value[1])]
    if not isinstance(value, dict):
        raise InputError(f"{row.where} is not {_PAIR}")
    if not columns and set(value) == {"1", "2"}:
        return [(value["1"], value["2"])]
    wanted = columns or (None, None)
    try:
        query = value[_column(row, wanted[0], _QUERIES[:1], _QUERIES[1:], "query")]
        listed = None if columns else _listed(row)
        if listed is not None:
            return [(query, document["text"]) for document in _documents(listed, None)]
        return [(query, value[_column(row, wanted[1], (), (*_TEXT, *_TEXTS, "answer"), "document")])]
    except InputError as error:
        raise error if columns else InputError(f"{row.where} is not {_PAIR} ({error})") from None


def _column(row: Row, wanted: str | None, first: Sequence[str], others: Sequence[str], what: str) -> str:
    """Return the key of an object under which its text is: the wanted one, the first, or the only other with a text.

    Raises:
        InputError: there is none, or it is no text, or there are several.
    """
    value = row.value
    keys = list(value)
    if wanted is not None:
        found = [wanted] if wanted in value else [key for key in value if key.strip().lower() == wanted.lower()]
        if not found and wanted.isdigit() and 0 < int(wanted) <= len(keys) and isinstance(value, dict):
            found = [keys[int(wanted) - 1]]
    else:
        found = _find(value, first) or _find(value, others)
    if len(found) > 1:
        raise InputError(f"{row.where} has {what} under several names, {found}: choose with --column")
    if not found or not isinstance(value[found[0]], str):
        raise InputError(
            f"{row.where} has no text under {(wanted or what)!r}; its keys are {sorted(keys)}: {_rename(keys, what)}, "
            "or, with rank and score, choose with --column"
        )
    return found[0]


def _rename(keys: Sequence[str], what: str) -> str:
    """Return the advice on how a column gets its name."""
    return f"write a headline with {what!r}" if all(map(str.isdigit, keys)) else f"rename one to {what!r}"


def _find(value: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return the keys, however they are capitalised, that are among some names and have a value."""
    return [key for key in value if key.strip().lower() in names and value[key] is not None]
