"""Directories that appear whole or not at all, and the removal of what a process left that was killed meanwhile."""

import fcntl
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlx_rerank.errors import OutputError

_MARK = ".writing"  # a file in an unfinished directory, which its writer has locked and which names the machine


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Give a temporary directory near the target that takes its place at the end, and is removed on any error.

    Directories near it that other writers left unfinished are removed.

    Raises:
        OutputError: it cannot be written.
    """
    existing = next(parent for parent in target.absolute().parents if parent.exists())
    directory = existing / f".{target.name}-{uuid.uuid4().hex[:8]}"  # named first, so that a signal at any
    try:  # moment finds something to remove
        _remove_abandoned(existing)
        directory.mkdir()
        with _marked(directory):
            yield directory
            target.parent.mkdir(parents=True, exist_ok=True)
            (directory / _MARK).unlink()
            directory.rename(target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}") from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _marked(directory: Path) -> Iterator[None]:
    """Keep others from removing a directory: the system releases the lock when this process dies."""
    with (directory / _MARK).open("xb") as mark:
        with suppress(OSError):  # a file system without locks; then nobody removes what this process leaves
            fcntl.flock(mark, fcntl.LOCK_EX)
            mark.write(_machine())
            mark.flush()
        yield


def _remove_abandoned(place: Path) -> None:
    """Remove the unfinished directories of this machine's dead processes; others' locks may not be seen from here."""
    for mark in place.glob(f".*-????????/{_MARK}"):
        with suppress(OSError), mark.open("r+b") as file:  # another process may remove or finish it at the same time
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.path.samestat(os.fstat(file.fileno()), mark.stat())  # else its writer has just finished
            if same and file.read() == _machine():
                shutil.rmtree(mark.parent, ignore_errors=True)


def _machine() -> bytes:
    """Return what tells this machine from others that write to the same folder."""
    return f"{socket.gethostname()}\n".encode()
