"""Scores kept on disk between processes: logits in a sqlite file, by a hash of all that they depend on.

A cache only saves work, so nothing fails because of one. A damaged file is moved aside and begun anew; one that cannot
be used turns the cache off. Each is logged, once. Only a database of another program is refused with an error.

The oldest scores go first, not the least recently used ones: a hit then writes nothing, and readers never wait.
"""

import logging
import math
import os
import sqlite3
import struct
import threading
import weakref
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from mlx_rerank.checkpoints.digest import sha256
from mlx_rerank.checkpoints.files import settled, stamp_of
from mlx_rerank.errors import InputError
from mlx_rerank.pairs.arguments import require_whole_number

T = TypeVar("T")
MAX_ENTRIES = 1_000_000  # some 80 MB
_APPLICATION = int.from_bytes(b"mlxr", "big")  # in the file's header: tells it from other programs' databases
_TABLES = {  # ids count up without a gap, so the first and the last one tell how many scores there are
    "scores": "CREATE TABLE scores (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL)",
    "digests": "CREATE TABLE digests (path BLOB PRIMARY KEY, stamp BLOB NOT NULL, sha256 BLOB NOT NULL)",
}
_VALUE = struct.Struct("<fIIII")  # logit, truncated tokens, begin and end of the span, checksum of all and the key
_TIMEOUT = 5.0  # seconds to wait for another process's transaction
_UNUSABLE = sqlite3.Error, OSError, ValueError, RuntimeError  # the last two for paths: a null character, no such user
_CHUNK = 900  # keys of a query: sqlite before 3.32 takes 999

logger = logging.getLogger("mlx_rerank")


class CachedScore(NamedTuple):
    """What is kept of a pair.

    Args:
        logit: float32.
        truncated_tokens: that the model did not see.
        begin: where the document's characters that the logit covers begin.
        end: where they end.
    """

    logit: float
    truncated_tokens: int
    begin: int
    end: int


class ScoreCache:
    """Scores by key in a file, usable by any number of threads and processes at once."""

    def __init__(self, path: str | Path, max_entries: int = MAX_ENTRIES) -> None:
        """Open a cache, and make it where there is none.

        Args:
            path: the file, whose directory is made too. sqlite keeps two more beside it while it is in use.
            max_entries: most scores kept. If there would be more, the oldest are removed until a tenth is free.

        Raises:
            InputError: the path is of the wrong type, or leads to a database of another program.
        """
        if not isinstance(path, (str, Path)) or not str(path).strip():
            raise InputError(f"a score cache is the path of a file, not {path!r}")
        self._path = Path(path)
        self._kept = require_whole_number("max_entries", max_entries)
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._off = False
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._close: Callable[[], object] = lambda: None
        self._run(lambda _: None)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, CachedScore]:
        """Return the scores that are known, by key."""
        return self._run(partial(_select, list(dict.fromkeys(keys)))) or {}

    def put(self, scores: Mapping[bytes, CachedScore]) -> None:
        """Keep scores, except those that are not finite. What is there already stays as it is."""
        rows = [(key, _pack(key, score)) for key, score in scores.items() if math.isfinite(score.logit)]
        self._run(partial(_insert, rows, self._kept))

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a file's bytes, remembered for as long as the file stays what it is.

        Raises:
            OSError: the file cannot be read.
        """
        name, before = os.fsencode(path.resolve()), stamp_of(path)
        stamp = repr(before).encode()
        query = "SELECT sha256 FROM digests WHERE path = ? AND stamp = ?"
        known = self._run(lambda connection: connection.execute(query, (name, stamp)).fetchone())
        if known:
            return bytes(known[0]).hex()
        digest = sha256(path)
        if settled(before) and stamp_of(path) == before:
            row = name, stamp, bytes.fromhex(digest)
            self._run(lambda connection: connection.execute("REPLACE INTO digests VALUES (?, ?, ?)", row))
        return digest

    def close(self) -> None:
        """Close the file; from then on nothing is found or kept."""
        with self._lock:
            self._off = True
            self._disconnect()

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Do something in a transaction, on a new file if this one is damaged; return None if the cache is off."""
        if os.getpid() != self._pid:  # neither a connection nor a lock survives a fork
            return None
        with self._lock:
            if self._off:
                return None
            try:
                return self._transact(work)
            except InputError:
                self._disconnect()
                raise
            except _UNUSABLE as error:
                logger.warning("score cache %s cannot be used (%s): scoring goes on without it", self._path, error)
                self._off = True
                self._disconnect()
                return None

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something in a transaction; if the file proves damaged, do it with a new one."""
        try:
            with self._connected() as connection:
                return work(connection)
        except sqlite3.OperationalError:  # locked, read-only, full ...
            raise
        except sqlite3.DatabaseError as error:
            self._disconnect()
            self._set_aside(error)
            with self._connected() as connection:
                return work(connection)

    def _connected(self) -> sqlite3.Connection:
        """Return the connection, opened where there is none."""
        if self._connection is None:
            path = self._path.expanduser().absolute()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=_TIMEOUT, check_same_thread=False)
            self._close = weakref.finalize(self, self._connection.close)
            self._inode = path.stat().st_ino
            _prepare(self._connection, path)
        return self._connection

    def _disconnect(self) -> None:
        """Close the connection, if there is one."""
        self._connection = None
        self._close()

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """Give a damaged file another name, unless another process has done so."""
        path = self._path.expanduser().absolute()
        if not path.exists() or path.stat().st_ino != self._inode:
            return
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        aside = path.replace(path.with_name(path.name + ".damaged"))
        logger.warning("score cache %s is damaged (%s): moved to %s, and begun anew", self._path, error, aside.name)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables in an empty file, and refuse any other that does not have them."""
    if not _has_tables(connection, path):
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            if not _has_tables(connection, path):  # another process may have been faster
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                for statement in _TABLES.values():
                    connection.execute(statement)
    with suppress(sqlite3.OperationalError):  # others are doing it, and the next to open the file finds it done
        connection.execute("PRAGMA journal_mode = WAL")  # readers and a writer at once
    connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose scores, never the file
    connection.execute("PRAGMA cache_size = -32768")


def _has_tables(connection: sqlite3.Connection, path: Path) -> bool:
    """Tell a cache from an empty file; raise an error for what is neither."""
    tables = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    if not tables and not owner:
        return False
    if owner != _APPLICATION:
        raise InputError(f"{path} is a database of another program: name another file for the score cache")
    if tables != _TABLES:
        raise sqlite3.DatabaseError("its tables are not those of this version")
    return True


def _select(keys: Sequence[bytes], connection: sqlite3.Connection) -> dict[bytes, CachedScore]:
    """Look scores up."""
    found = {}
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        query = f"SELECT key, value FROM scores WHERE key IN ({','.join('?' * len(chunk))})"
        for key, value in connection.execute(query, chunk):
            found[key] = _unpack(key, value)
    return found


def _insert(rows: Sequence[tuple[bytes, bytes]], kept: int, connection: sqlite3.Connection) -> None:
    """Add scores, and remove the oldest where there are too many."""
    connection.executemany("INSERT OR IGNORE INTO scores (key, value) VALUES (?, ?)", rows)
    ends = "SELECT (SELECT min(id) FROM scores), (SELECT max(id) FROM scores)"
    first, last = connection.execute(ends).fetchone()
    if rows and last - first >= kept:
        connection.execute("DELETE FROM scores WHERE id <= ?", (last - max(kept - kept // 10, 1),))


def _pack(key: bytes, score: CachedScore) -> bytes:
    """Return a score as it is stored."""
    fields = _VALUE.pack(*score, 0)[:-4]
    return fields + zlib.crc32(key + fields).to_bytes(4, "little")


def _unpack(key: bytes, value: bytes) -> CachedScore:
    """Return a stored score, or raise an error where it is not what was stored: sqlite itself has no checksums."""
    try:
        score = CachedScore(*_VALUE.unpack(value)[:-1])
        if _pack(key, score) == value:
            return score
    except (struct.error, TypeError):
        pass
    raise sqlite3.DatabaseError("a score is not what was stored")
