"""Files in encodings, compressions and formats that people have: read right, or refused with a remedy that works."""

import bz2
import gzip
import io
import lzma
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from mlx_rerank.errors import InputError
from mlx_rerank.pairs.decoding import read_text
from mlx_rerank.pairs.files import read_documents

LINES = "Pandas eat bamboo.\nTea is hot, and the café is open.\n"
CHINESE = "大熊猫几乎只吃竹子。\n今天下雨。\n"


def zipped(name: str, text: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, text)
    return file.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_and_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes((LINES + CHINESE).replace("\n", end).encode(encoding))
    assert [row["text"] for row in read_documents([str(path)])] == (LINES + CHINESE).splitlines()


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_both_orders_of_utf_16(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(mark + CHINESE.encode("utf-16-le" if mark[0] == 0xFF else "utf-16-be"))
    assert read_text(str(path)) == CHINESE


@pytest.mark.parametrize(
    ("data", "said", "text"),
    [
        (LINES.encode("utf-16-le"), "looks like UTF-16LE", LINES),
        (LINES.encode("utf-16-be"), "looks like UTF-16BE", LINES),
        (CHINESE.encode("utf-16-le"), "looks like UTF-16LE", CHINESE),
        (CHINESE.encode("utf-16-be"), "looks like UTF-16BE", CHINESE),
        (LINES.encode("latin-1"), "byte 42 is 0xe9. If it is Western European", LINES),
        ("„Tee“ – 5 €\n".encode("cp1252"), "byte 0 is 0x84", "„Tee“ – 5 €\n"),
        (b"one\0two\nthree\n", "byte 3 is NUL", "one two\nthree\n"),
        (gzip.compress(LINES.encode(), mtime=0), "compressed with gzip", LINES),
        (bz2.compress(LINES.encode()), "compressed with bzip2", LINES),
        (lzma.compress(LINES.encode()), "compressed with xz", LINES),
        (zipped("a.txt", LINES), "is a zip archive", LINES),
    ],
)
def test_remedies(tmp_path: Path, data: bytes, said: str, text: str) -> None:
    path = tmp_path / "some 'file'"
    path.write_bytes(data)
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        read_text(str(path))
    command = str(caught.value).split('with "-" for the file: ')[1]
    done = subprocess.run(command, shell=True, capture_output=True, check=False)
    if done.returncode == 127:
        pytest.skip(f"{command.split()[0]} is not installed")
    assert done.stdout.decode() == text


def test_remedies_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(LINES.encode(), mtime=0))))
    with pytest.raises(InputError, match=r"- is compressed with gzip. Pipe it through: gunzip -c$"):
        read_text("-")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"%PDF-1.7\n", "is a PDF"),
        (b"PAR1\x15\x04", "is a Parquet table"),
        (zipped("word/document.xml", "<w/>"), "is an Office document"),
        (b"SQLite format 3\0\x10", "is an SQLite database"),
        (b"\xff\xfea", "is not UTF-16 text"),
        (b"\xff\xfea\0\0\0", "byte 1 is NUL"),
        ("日本語".encode("shift_jis") + b"\x81", "iconv -l lists the encodings"),
    ],
)
def test_what_is_no_text(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "in").write_bytes(data)
    with pytest.raises(InputError, match=said):
        read_text(str(tmp_path / "in"))


def test_places_without_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"cannot be read: Is a directory: name files in it, such as .*/\*$"):
        read_text(str(tmp_path))
    with pytest.raises(InputError, match="cannot be read"):
        read_text("a\0b")
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        read_text("-")
