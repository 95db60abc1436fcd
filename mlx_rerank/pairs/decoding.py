"""The text of a file or of standard input; what is not in UTF-8 or UTF-16 is refused with a command to convert it."""

import codecs
import errno
import shlex
import sys
from pathlib import Path

from mlx_rerank.errors import InputError

_MARKS = (  # UTF-32's first: its little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PACKED = (  # first bytes, what they are of, the command that prints the text
    (b"\x1f\x8b", "gzip", "gunzip -c"),
    (b"BZh91AY&SY", "bzip2", "bunzip2 -c"),
    (b"\xfd7zXZ\x00", "xz", "xz -dc"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -dc"),
)
_BINARY = (
    (b"%PDF-", "a PDF: convert it to text, for example with pdftotext"),
    (b"PAR1\x15", "a Parquet table: export it as JSON lines or CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Office document: save it as CSV or as text in UTF-8"),
    (b"SQLite format 3\x00", "an SQLite database: export it as JSON lines or CSV"),
)
_OFFICE = (b"word/", b"xl/", b"ppt/", b"mimetypeapplication/vnd.oasis.opendocument")  # names in a zip archive
_WIDE = ("UTF-16LE", "UTF-16BE")
_LOOKED_AT = 4096  # bytes, to guess an encoding


def read_text(path: str) -> str:
    """Return the text of a file, or of standard input for "-".

    Text is UTF-8, or UTF-16 or UTF-32 with a byte order mark; the mark is left out.

    Raises:
        InputError: it cannot be read, or is something else; it says how to convert it.
    """
    data = _read(path)
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decode(data, encoding, path)
    _refuse_binary(data, path)
    if b"\0" in data:
        raise InputError(_about_nul(data, path))
    return _decode(data, "utf-8-sig", path)


def _read(path: str) -> bytes:
    """Return the bytes of a file or of standard input."""
    if path == "-" and sys.stdin is None:  # Python's word for a descriptor that was closed before the start
        raise InputError("standard input is closed: name a file, or pipe the text in")
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        advice = f": name files in it, such as {shlex.quote(path)}/*" if error.errno == errno.EISDIR else ""
        raise InputError(f"{path} cannot be read: {error.strerror}{advice}") from error
    except ValueError as error:  # a name that no file can have
        raise InputError(f"{path} cannot be read: {error}") from error


def _decode(data: bytes, encoding: str, path: str) -> str:
    """Return bytes as text."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        where = f"{path} is not {name} text: byte {error.start} is 0x{data[error.start]:02x}"
        raise InputError(f"{where}. {_advice(data, path) if name == 'UTF-8' else 'It is damaged'}") from error
    if "\0" in text:
        raise InputError(_about_nul(text[: text.index("\0")].encode() + b"\0", path))
    return text


def _refuse_binary(data: bytes, path: str) -> None:
    """Refuse files of other programs, known by their first bytes."""
    for magic, name, command in _PACKED:
        if data.startswith(magic):
            raise InputError(f"{path} is compressed with {name}. {_piped(command, path)}")
    if data.startswith(b"PK\x03\x04"):
        if any(name in data[:_LOOKED_AT] for name in _OFFICE):
            raise InputError(f"{path} is an Office document: save it as CSV or as text in UTF-8")
        raise InputError(f"{path} is a zip archive. {_piped('unzip -p', path, reads_pipes=False)}")
    for magic, what in _BINARY:
        if data.startswith(magic):
            raise InputError(f"{path} is {what}")


def _about_nul(data: bytes, path: str) -> str:
    """Say what bytes with a NUL may be: every second byte of most texts in UTF-16 is one."""
    where = f"{path} is not UTF-8 text: byte {data.index(0)} is NUL"
    wide = _wide(data)
    command = f"iconv -f {wide} -t UTF-8" if wide else "tr '\\000' ' '"
    reads = "" if wide else "< "
    return f"{where}. {'It looks like ' + wide + '. ' if wide else ''}{_piped(command, path, redirect=reads)}"


def _wide(data: bytes) -> str | None:
    """Return UTF-16LE or UTF-16BE if bytes look like it: many NULs at every second place, or else no UTF-8."""
    some = data[:_LOOKED_AT]
    even, odd = some[::2].count(0), some[1::2].count(0)
    try:
        data.decode("utf-16-be" if even > odd else "utf-16-le")
        data.decode()
    except UnicodeDecodeError as error:
        return None if error.encoding.startswith("utf-16") else _WIDE[even > odd]
    return _WIDE[even > odd] if abs(even - odd) * 8 > len(some) else None


def _advice(data: bytes, path: str) -> str:
    """Say how to convert a text in another encoding: it is UTF-8 that was cut, Windows' Latin, or unknown."""
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return "Convert it: iconv -f ENCODING -t UTF-8, where iconv -l lists the encodings"
    convert = _piped("iconv -f WINDOWS-1252 -t UTF-8", path)
    return f"If it is Western European text, as older programs on Windows write it: {convert}"


def _piped(command: str, path: str, *, redirect: str = "", reads_pipes: bool = True) -> str:
    """Return the advice to pipe in what a command prints of a file, with "-" in place of the file."""
    if path == "-":
        return f"Pipe it through: {command}" if reads_pipes else "Save it to a file and unpack that"
    return f'Pipe in what this prints, with "-" for the file: {command} {redirect}{shlex.quote(path)}'
