"""Training data: every format, and errors that name the file and the line."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_rerank.errors import InputError
from mlx_rerank.train import Example, read_examples

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
NUMBERS = st.floats(-1e6, 1e6)
SHARES = st.floats(0, 1)


def write(directory: Path, *rows: object, name: str = "data.jsonl") -> Path:
    path = directory / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"query": "q", "pos": ["a"], "neg": ["b", "c"]}], [Example("q", ("a", "b", "c"), (1, 0, 0))]),
        ([{"query": "q", "pos": ["a"], "neg": [], "prompt": "p"}], [Example("q", ("a",), (1,))]),
        ([{"query": "q", "pos": ["a", "b"]}], [Example("q", ("a", "b"), (1, 1))]),
        (
            [{"query": "q", "pos": ["a"], "neg": ["b"], "pos_scores": [2.5], "neg_scores": [-1]}],
            [Example("q", ("a", "b"), (1, 0), (2.5, -1))],
        ),
        ([{"query": "q", "pos": ["a"], "neg": ["b"], "pos_scores": [2.5]}], [Example("q", ("a", "b"), (1, 0))]),
        ([{"anchor": "q", "positive": "a", "negative": "b"}], [Example("q", ("a", "b"), (1, 0))]),
        (
            [{"query": "q", "positive": "a", "negative_1": "b", "negative_2": "c", "label": [2, 3]}],
            [Example("q", ("a", "b", "c"), (1, 0, 0), (0, -2, -3))],
        ),
        ([{"query": "q", "positive": "a", "negative": "b", "score": 4}], [Example("q", ("a", "b"), (1, 0), (0, -4))]),
        ([{"query": "q", "documents": ["a", "b"], "labels": [0.2, 1]}], [Example("q", ("a", "b"), (0.2, 1))]),
        ([{"query": "q", "docs": ["a", "b"], "labels": [1, 0]}], [Example("q", ("a", "b"), (1, 0))]),
        ([{"sentence1": "q", "sentence2": "a", "score": 0.3}], [Example("q", ("a",), (0.3,))]),
        (
            [
                {"query": "q", "document": "a", "label": 1},
                {"query": "r", "passage": "b", "label": 0},
                {"query": "q", "answer": "c", "label": "0.5"},
            ],
            [Example("q", ("a", "c"), (1, 0.5)), Example("r", ("b",), (0,))],
        ),
    ],
)
def test_formats(tmp_path: Path, rows: list, expected: list[Example]) -> None:
    assert read_examples(write(tmp_path, *rows)) == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "q", "document": "a"}, "there is no label among"),
        ({"document": "a", "label": 1}, "there is no query among"),
        ({"query": "q", "label": 1}, "there is no document among"),
        ({"query": "q", "negative": "a"}, "there is no positive among"),
        ({"query": 3, "document": "a", "label": 1}, "is not a list of texts"),
        ({"query": "q", "pos": "a", "neg": ["b"]}, "'a' is not a list of texts"),
        ({"query": "q", "pos": ["a"], "neg": [None]}, "is not a list of texts"),
        ({"query": "q", "pos": [], "neg": []}, "there are no documents"),
        ({"query": "q", "document": "a", "label": 2}, "labels go from 0 to 1"),
        ({"query": "q", "document": "a", "label": -0.1}, "labels go from 0 to 1"),
        ({"query": "q", "document": "a", "label": 10**400}, "too large"),
        ({"query": "q", "document": "a", "label": "yes"}, "could not convert"),
        ({"query": "q", "document": "a", "label": [1]}, "must be a string or a real number"),
        ({"query": "q", "documents": ["a", "b"], "labels": [1]}, "2 documents have 1 labels"),
        ({"query": "q", "documents": ["a"], "labels": ["inf"]}, "not all finite"),
        ({"query": "q", "documents": ["a", "b"], "labels": 1}, "not iterable"),
        ({"query": "q", "pos": ["a"], "neg": ["b"], "pos_scores": [1], "neg_scores": []}, "1 scores of a teacher"),
        (
            {"query": "q", "pos": ["a"], "neg": ["b", "c"], "pos_scores": [1, 2], "neg_scores": [3]},
            "1 texts in pos have 2 pos_scores",
        ),
        ({"query": "q", "positive": "a", "negative_1": "b", "negative_2": "c", "label": 1}, "2 scores of a teacher"),
        ({"query": "\ud800", "document": "a", "label": 1}, "lone surrogate"),
    ],
)
def test_a_line_that_is_none_of_them(tmp_path: Path, row: dict, message: str) -> None:
    path = write(tmp_path, {"query": "q", "pos": ["a"]}, row)
    with pytest.raises(InputError, match=message) as caught:
        read_examples(path)
    assert str(caught.value).startswith(f"{path}:2: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no training data: a line is"),
        (b"\n\n", "holds no training data"),
        (b'{"query": "q", "pos": ["a"]}\n[1]\n', ":2 is a JSON list"),
        (b'\n{"query": "q"', ":2 is not JSON"),
        (b'{"query": "q", "document": "a", "label": ' + b"1" * 5000 + b"}", ":1 is not JSON"),
        (b'{"query": "q", "document": "a", "label": NaN}', ":1 is not JSON: NaN"),
        (b"\xff", "is not UTF-8 text: byte 0 is 0xff"),
        (b"[" * 100_000, ":1 is not JSON"),
    ],
)
def test_files_that_are_no_data(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_examples(path)
    assert str(caught.value).startswith(str(path))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_examples(path)


@pytest.mark.parametrize(("name", "mark"), [("data.csv", ","), ("data.tsv", "\t")])
def test_tables(tmp_path: Path, name: str, mark: str) -> None:
    path = tmp_path / name
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        rows = [["query", "document", "label"], ["q", "a, b\tc\nd", "1"], ["q", "e", "0"], ["熊", "", "0.5"]]
        csv.writer(file, delimiter=mark).writerows(rows)
    assert read_examples(path) == [Example("q", ("a, b\tc\nd", "e"), (1, 0)), Example("熊", ("",), (0.5,))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("query,document,label\n", "holds no training data"),
        ("", "holds no training data"),
        ("query,document,label\nq,a,1\nq,b\n", ":3: there is no label among"),
        ("query,document,label\nq,a, b,1\n", ":2 has more fields than the headline"),
        ("query,positive,negative\nq,a,b,c\n", ":2 has more fields than the headline"),
        ("query,document,label\nq,a,\n", ":2: could not convert"),
        ('query,document,label\n"q"x,a,1\n', "cannot be read: "),
        ("query,pos,neg\nq,a,b\n", ":2: 'a' is not a list of texts"),
        ("question;answer\nq;a\n", ":2: there is no label among"),
    ],
)
def test_tables_that_are_no_data(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_examples(path)
    assert str(caught.value).startswith(str(path))


@given(st.lists(st.tuples(TEXTS, st.lists(st.tuples(TEXTS, SHARES, NUMBERS), min_size=2, max_size=4)), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_lists_come_back(tmp_path: Path, queries: list) -> None:
    expected = []
    for query, rows in queries:
        documents, labels, _ = map(tuple, zip(*rows, strict=True))
        expected.append(Example(query, documents, labels))
    rows = [{"query": e.query, "documents": e.documents, "labels": e.labels} for e in expected]
    assert read_examples(write(tmp_path, *rows)) == expected


@given(st.lists(st.tuples(TEXTS, st.lists(st.tuples(TEXTS, NUMBERS), max_size=3), st.integers(0, 2)), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_positives_negatives_and_a_teacher_come_back(tmp_path: Path, queries: list) -> None:
    rows, expected = [], []
    for query, others, extra in queries:
        documents = [("p", 1.5)] * (1 + extra) + others
        texts, scores = map(tuple, zip(*documents, strict=True))
        first = 1 + extra
        kinds = {"pos": texts[:first], "neg": texts[first:]}
        rows.append({"query": query, **kinds, "pos_scores": scores[:first], "neg_scores": scores[first:]})
        labels = (1.0,) * first + (0.0,) * len(others)
        expected.append(Example(query, texts, labels, scores))
    assert read_examples(write(tmp_path, *rows)) == expected


@given(st.dictionaries(TEXTS, st.lists(st.tuples(TEXTS, SHARES), min_size=1, max_size=3), min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_pairs_in_a_table_come_back(tmp_path: Path, queries: dict) -> None:
    file = io.StringIO()
    rows = [(query, text, repr(label)) for query, own in queries.items() for text, label in own]
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("query", "document", "label"), *rows])
    path = tmp_path / "pairs.csv"
    path.write_bytes(file.getvalue().encode())
    expected = [Example(query, *map(tuple, zip(*own, strict=True))) for query, own in queries.items()]
    assert read_examples(path) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("q", (), ()), "there are no documents"),
        (("q", ("a",), (1.0, 0.0)), "1 documents have 2 labels"),
        (("q", ("a",), (1.0,), (1.0, 2.0)), "1 documents have 2 scores of a teacher"),
        (("q", ("a",), (1.5,)), "labels go from 0 to 1"),
        (("q", (None,), (1.0,)), "a query or document is a NoneType, not a text"),
        (("q", ("\udc00",), (1.0,)), "lone surrogate"),
    ],
)
def test_examples_that_cannot_be(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Example(*arguments)


def test_positives() -> None:
    for labels, expected in (((0, 1, 1), [1, 2]), ((0.4, 0.5), []), ((0.6, 0.2), [0]), ((0.9, 1.0), [1])):
        assert Example("q", ("a", "b", "c")[: len(labels)], labels).positives == expected
