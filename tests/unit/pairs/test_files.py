"""What the command line reads."""

import io
from pathlib import Path

import pytest

from mlx_rerank.errors import InputError
from mlx_rerank.pairs.files import read_documents, read_pairs


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def feed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\ufefffirst\r\n\n  \nsecond \u2028 with a separator\n")
    assert read_documents([path], "auto") == [{"text": "first"}, {"text": "second \u2028 with a separator"}]


def test_json_lines(tmp_path: Path) -> None:
    rows = '{"text": "a", "id": 1}\n\n{"text": "b", "_id": "x"}\n'
    expected = [{"text": "a", "id": 1}, {"id": "x", "text": "b", "_id": "x"}]
    assert read_documents([write(tmp_path / "a.jsonl", rows)], "auto") == expected
    assert read_documents([write(tmp_path / "a.txt", rows)], "auto") == expected
    assert len(read_documents([write(tmp_path / "a.txt", rows)], "lines")) == 2


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write(tmp_path / name, f"text of\n{name}") for name in ("a.txt", "b.txt")]
    expected = [{"id": path, "text": f"text of\n{Path(path).name}"} for path in paths]
    assert read_documents(paths, "auto") == expected
    assert read_documents(paths[:1], "files") == expected[:1]
    feed(monkeypatch, "\n".join(paths))
    assert read_documents(["-"], "files") == expected


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for paths in ([], ["-"]):
        feed(monkeypatch, "one\ntwo\n")
        assert read_documents(paths, "auto") == [{"text": "one"}, {"text": "two"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": \n', r":2 is not JSON"),
        ('{"text": "a"}\n["b"]\n', r":2 is a JSON list, not an object"),
        ('{"title": "a"}\n', r":1 has no text under 'text'; its keys are \['title'\]"),
        ('{"text": "a", "id": NaN}\n', r":1 is not JSON: NaN"),
        ('{"text": 5}\n', r":1 has no text"),
        ("{" + '"a":[' * 100_000, r":1 is not JSON"),
        (b"fine\n\xff\xfe", r"is not UTF-8 text: byte 5 is 0xff"),
    ],
)
def test_bad_documents_are_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_documents([write(tmp_path / "in", content)], "auto")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_documents([str(path)], "auto")


def test_pairs(tmp_path: Path) -> None:
    assert read_pairs(write(tmp_path / "a.tsv", "q\td\n\nq2\td2\r\n")) == [("q", "d"), ("q2", "d2")]
    rows = '{"query": "q", "document": "d\\twith a tab"}\n'
    assert read_pairs(write(tmp_path / "a.jsonl", rows)) == [("q", "d\twith a tab")]


@pytest.mark.parametrize("content", ["no tab\n", "a\tb\tc\n", '{"query": "q"}\n', '{"query": "q", "document": 5}\n'])
def test_bad_pairs_are_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match=":1 is not a pair"):
        read_pairs(write(tmp_path / "in", content))
