"""The score cache: several threads at once, limits, and every kind of damage."""

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
from score_caches import full, key, overwrite, scores

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.files import settled, stamp_of
from mlx_rerank.errors import InputError
from mlx_rerank.scoring.score_cache import ScoreCache


def test_digests_are_remembered_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, file = ScoreCache(tmp_path / "scores.db"), tmp_path / "weights"
    file.write_bytes(b"zer")
    cache.digest(file)
    file.write_bytes(b"one")  # so soon that the file may have the same times
    assert cache.digest(file) == sha256(b"one").hexdigest()
    while not settled(stamp_of(file)):
        pass
    assert cache.digest(file) == sha256(b"one").hexdigest()
    monkeypatch.setattr("mlx_rerank.scoring.score_cache.sha256", lambda _: "ff" * 32)
    assert cache.digest(file) == sha256(b"one").hexdigest()
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(b"two")
    os.utime(file, ns=times)  # same size, same time: what rsync and tar can make of another file
    assert cache.digest(file) == "ff" * 32


def test_the_digest_of_a_file_just_written_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, file = ScoreCache(tmp_path / "scores.db"), tmp_path / "weights"
    file.write_bytes(b"one")
    monkeypatch.setattr("mlx_rerank.scoring.score_cache.settled", lambda _: False)
    assert cache.digest(file) == sha256(b"one").hexdigest()
    monkeypatch.setattr("mlx_rerank.scoring.score_cache.sha256", lambda _: "ff" * 32)
    assert cache.digest(file) == "ff" * 32


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_only_the_file_that_was_opened_is_set_aside(tmp_path: Path, off: int) -> None:
    path = tmp_path / "scores.db"
    cache = ScoreCache(path)
    cache.put(scores(0, 1))
    cache._inode = path.stat().st_ino + off
    cache._set_aside(sqlite3.DatabaseError("damaged"))
    assert path.exists() == bool(off)


def test_threads_share_a_cache(tmp_path: Path) -> None:
    def work(seed: int) -> None:
        cache = caches[seed % 2]
        for _ in range(20):
            start = Random(seed).randrange(500)
            cache.put(scores(start, start + 50))
            assert cache.get([*scores(start, start + 50)]) == scores(start, start + 50)

    caches = [ScoreCache(tmp_path / "scores.db") for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_the_oldest_tenth_goes_and_the_file_stops_growing(tmp_path: Path) -> None:
    path = tmp_path / "scores.db"
    cache = ScoreCache(path, max_entries=1000)
    cache.put(scores(0, 1000))
    assert len(cache.get([*scores(0, 1000)])) == 1000
    cache.put(scores(1000, 1001))
    assert cache.get([*scores(0, 1001)]) == scores(101, 1001)
    for start in range(1000, 3000, 100):
        cache.put(scores(start, start + 100))
    cache.close()
    size = path.stat().st_size
    cache = ScoreCache(path, max_entries=1000)
    for start in range(3000, 13000, 100):
        cache.put(scores(start, start + 100))
    cache.put(scores(20_000, 25_000))  # more at once than there is room for
    assert cache.get([*scores(0, 25_000)]) == scores(24_100, 25_000)
    cache.put(scores(30_000, 30_100))
    cache.close()
    assert path.stat().st_size < 6 * size  # the 5,000 at once included
    tight = ScoreCache(tmp_path / "tight.db", max_entries=1)
    for n in range(3):
        tight.put(scores(n, n + 1))
        assert tight.get([*scores(0, 3)]) == scores(n, n + 1)


def forget_a_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE scores")
    connection.close()


DAMAGES = {
    "garbage": lambda path: path.write_bytes(b"not a database at all " * 1000),
    "short": lambda path: path.write_bytes(b"SQLite format 3\0"),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "header": lambda path: path.write_bytes(bytes(100) + path.read_bytes()[100:]),
    "schema": forget_a_table,
    "pages 1": lambda path: overwrite(path, 1),
    "pages 2": lambda path: overwrite(path, 2),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_moved_aside_and_begun_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    path = tmp_path / "scores.db"
    stored = full(path)
    damage(path)  # type: ignore[operator]
    cache = ScoreCache(path)
    found = cache.get([*stored])
    assert found.items() <= stored.items()
    cache.put(stored)
    assert cache.get([*stored]) == stored
    assert [record.message for record in caplog.records if "is damaged" in record.message][1:] == []
    assert len(caplog.records) == 1
    assert (tmp_path / "scores.db.damaged").exists()
    cache.close()
    assert ScoreCache(path).get([*stored]) == stored


@pytest.mark.parametrize("value", ["(SELECT value FROM scores WHERE id = 2)", "'a text of sixteen'", "5", "x'00'"])
def test_damage_to_one_score_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture, value: str) -> None:
    path = tmp_path / "scores.db"
    full(path, 3)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE scores SET value = {value} WHERE id = 1")
    connection.close()
    assert ScoreCache(path).get([key(0)]) == {}
    assert "is damaged (a score is not what was stored)" in caplog.text


def test_its_directories_are_made(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "a" / "b" / "scores.db")
    cache.put(scores(0, 1))
    assert cache.get([key(0)]) == scores(0, 1)


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path, tiny: Path) -> None:
    path = tmp_path / "mail.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mail (text)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"mail\.db is a database of another program"):
        Reranker(tiny, score_cache=path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [5, True, b"scores.db", "", " "])
def test_what_is_no_path(tiny: Path, value: object) -> None:
    with pytest.raises(InputError, match="a score cache is the path of a file, not"):
        Reranker(tiny, score_cache=value)  # type: ignore[arg-type]


def test_a_lock_that_is_held_turns_the_cache_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlx_rerank.scoring.score_cache._TIMEOUT", 0.05)
    full(tmp_path / "scores.db", 10)
    holder = sqlite3.connect(tmp_path / "scores.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    cache = ScoreCache(tmp_path / "scores.db")
    assert cache.get([*scores(0, 10)]) == scores(0, 10)  # readers do not wait for a writer
    cache.put(scores(10, 20))
    cache.put(scores(10, 20))
    assert cache.get([*scores(0, 10)]) == {}
    assert [record.message for record in caplog.records] == [
        f"score cache {tmp_path / 'scores.db'} cannot be used (database is locked): scoring goes on without it"
    ]
    holder.close()
