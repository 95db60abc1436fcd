"""The files of a directory that a stranger has written: opened only if they are plain ones, and read up to a size."""

import stat
from pathlib import Path

from mlx_rerank.errors import CheckpointError

_MOST = 2**29  # bytes of a file that is read whole; a tokenizer.json of a million pieces has a fifth of it


def require_plain(path: Path) -> int:
    """Return the bytes of a plain file; anything else may wait for ever, or never end, when it is opened.

    Raises:
        FileNotFoundError: there is nothing.
        CheckpointError: it is a directory, a pipe, a socket or a device, or cannot be looked at.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path} is not a plain file: put the file itself there")
    return status.st_size


def read_text(path: Path, most: int = _MOST) -> str:
    """Return the text of a file; as `read_bytes`.

    Raises:
        CheckpointError: it is not UTF-8.
    """
    try:
        return read_bytes(path, most).decode("utf-8")
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read as text: {error}") from error


def read_bytes(path: Path, most: int = _MOST) -> bytes:
    """Return the bytes of a file.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        FileNotFoundError: there is nothing.
        CheckpointError: it is no plain file, too large, or not readable.
    """
    size = require_plain(path)
    if size > most:
        raise CheckpointError(f"{path} has {size} bytes, more than the {most} that it may have")
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
