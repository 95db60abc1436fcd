"""The score cache: hits and misses, several users at once, limits, and every kind of damage."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Literal

import bounds
import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.errors import CancelledError, InputError, NonFiniteScoreError
from mlx_rerank.models.mapping import SIGMOID
from mlx_rerank.pairs.batching import Batch
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.windows import Windows
from mlx_rerank.scoring.cached_logits import CachedLogits, Computation, keys
from mlx_rerank.scoring.score_cache import CachedScore, ScoreCache

PAIRS = [("panda", "the bear"), ("panda", "what is panda"), ("panda", "the bear"), ("", "熊猫吃竹子 " * 30)]
COMPUTATION = Computation("0" * 64, "float32", "cpu", deterministic=False)


def key(number: int) -> bytes:
    return sha256(str(number).encode()).digest()[:16]


def scores(start: int, stop: int) -> dict[bytes, CachedScore]:
    return {key(n): CachedScore(n / 4, n, 0, 9) for n in range(start, stop)}


def counting(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of pairs each time some are encoded."""
    counts: list[int] = []
    encode = reranker.encoder.encode
    monkeypatch.setattr(
        reranker.encoder, "encode", lambda pairs, *rest: counts.append(len(pairs)) or encode(pairs, *rest)
    )
    return counts


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.numeric
def test_a_hit_is_neither_encoded_nor_changed_by_a_bit(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Reranker(tiny).logits(PAIRS)
    reranker = Reranker(tiny, score_cache=tmp_path / "made" / "scores.db")
    counts = counting(reranker, monkeypatch)
    first, second = reranker.logits(PAIRS), reranker.logits(PAIRS[::-1])
    assert counts == [3]  # each distinct pair once, and none the second time
    np.testing.assert_allclose(first.logits, plain.logits, rtol=0, atol=bounds.COMPANY)
    np.testing.assert_array_equal(second.logits[::-1], first.logits)
    np.testing.assert_array_equal(second.truncated_tokens[::-1], plain.truncated_tokens)
    assert plain.truncated_tokens[3] > 0
    assert (first.logits.dtype, first.truncated_tokens.dtype) == (np.float32, np.int64)
    reranker.logits([*PAIRS, ("panda", "new")])
    assert counts == [3, 1]
    assert reranker.logits([]).logits.shape == (0,)


@pytest.mark.parametrize(
    "other", [{"dtype": "float16"}, {"max_length": 20}, {"deterministic": True}], ids=lambda it: next(iter(it))
)
def test_other_settings_miss(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict) -> None:
    Reranker(tiny, score_cache=tmp_path / "scores.db").logits(PAIRS)
    reranker = Reranker(tiny, score_cache=tmp_path / "scores.db", **other)
    counts = counting(reranker, monkeypatch)
    reranker.logits(PAIRS)
    reranker.logits(PAIRS, limits=replace(reranker.limits, query_max_length=3))
    assert counts == [3, 3]


@pytest.mark.numeric
def test_another_model_misses(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = write_checkpoint(tmp_path / "other", tensors=random_tensors(TINY, seed=1))
    Reranker(tiny, score_cache=tmp_path / "scores.db").logits(PAIRS)
    reranker = Reranker(other, score_cache=tmp_path / "scores.db")
    counts = counting(reranker, monkeypatch)
    expected = Reranker(other).logits(PAIRS).logits
    np.testing.assert_allclose(reranker.logits(PAIRS).logits, expected, rtol=0, atol=bounds.COMPANY)
    assert counts == [3]


def test_keys_depend_on_everything_and_on_nothing_else() -> None:
    limits = Limits(512)
    assert keys(COMPUTATION, limits, [("a", "b"), ("a", "b")]) == keys(COMPUTATION, limits, [("a", "b")]) * 2
    texts = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc", ""),
        ("", "abc"),
        ("c", "ab"),
        ("a\0", "b"),
        ("a", "\0b"),
        ("\ud800", ""),
    ]
    found = keys(COMPUTATION, limits, texts)
    for changed in (
        Computation("1" * 64, "float32", "cpu", deterministic=False),
        Computation("0" * 64, "float16", "cpu", deterministic=False),
        Computation("0" * 64, "float32", "gpu", deterministic=False),
        Computation("0" * 64, "float32", "cpu", deterministic=True),
    ):
        found += keys(changed, limits, texts)
    found += keys(COMPUTATION, Limits(511), texts) + keys(COMPUTATION, Limits(512, 384), texts)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("module", ["mlx_rerank", "mlx"])
def test_keys_depend_on_versions(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    before = keys(COMPUTATION, Limits(512), [("a", "b")])
    if module == "mlx":
        monkeypatch.setattr("mlx_rerank.scoring.cached_logits.version", lambda _: "99")
    else:
        monkeypatch.setattr("mlx_rerank.scoring.cached_logits.__version__", "99")
    assert keys(COMPUTATION, Limits(512), [("a", "b")]) != before


def test_the_fingerprint_is_of_what_files_hold(tiny: Path, tmp_path: Path) -> None:
    def fingerprint(directory: Path) -> str:
        return Checkpoint.open(directory).fingerprint(ScoreCache(tmp_path / "scores.db").digest)

    snapshot = tmp_path / "hub" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for path in tiny.iterdir():  # as the hub library keeps files
        blob = tmp_path / "hub" / path.name
        blob.write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(blob)
    assert fingerprint(snapshot) == fingerprint(snapshot) == fingerprint(tiny)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        content = (snapshot / name).read_bytes()
        changed = tmp_path / f"changed-{name}"
        changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if name == "model.safetensors" else content + b" ")
        (snapshot / name).unlink()
        (snapshot / name).symlink_to(changed)
        assert fingerprint(snapshot) != fingerprint(tiny), name
        (snapshot / name).unlink()
        (snapshot / name).symlink_to(tmp_path / "hub" / name)
    (snapshot / "README.md").write_text("no weights")
    assert fingerprint(snapshot) == fingerprint(tiny)


def test_digests_are_remembered_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, file = ScoreCache(tmp_path / "scores.db"), tmp_path / "weights"
    file.write_bytes(b"one")
    assert cache.digest(file) == sha256(b"one").hexdigest()
    monkeypatch.setattr("mlx_rerank.scoring.score_cache.sha256", lambda _: "ff" * 32)
    assert cache.digest(file) == sha256(b"one").hexdigest()
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(b"two")
    os.utime(file, ns=times)  # same size, same time: what rsync and tar can make of another file
    assert cache.digest(file) == "ff" * 32


@pytest.mark.numeric
def test_another_process_hits(tiny: Path, tmp_path: Path) -> None:
    code = (
        "import sys, json; from mlx_rerank import Reranker\n"
        "reranker = Reranker(sys.argv[1], score_cache=sys.argv[2])\n"
        "if sys.argv[3] == 'second': reranker.encoder.encode = None\n"
        "print(json.dumps(reranker.logits([('panda', 'the bear'), ('a', 'b')]).logits.tolist()))"
    )
    outputs = [run(code, tiny, tmp_path / "scores.db", which) for which in ("first", "second")]
    first, second = (json.loads(output.stdout) for output in outputs)
    assert first == second
    expected = Reranker(tiny).logits([("panda", "the bear"), ("a", "b")]).logits
    np.testing.assert_allclose(first, expected, rtol=0, atol=bounds.COMPANY)


def test_non_finite_logits_are_not_kept(tiny: Path, tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.db")
    cache.put(
        {
            key(1): CachedScore(float("nan"), 0, 0, 9),
            key(2): CachedScore(float("-inf"), 0, 0, 9),
            key(3): CachedScore(1, 0, 0, 9),
        }
    )
    assert set(cache.get([key(1), key(2), key(3)])) == {key(3)}

    tensors = random_tensors(TINY) | {"classifier.out_proj.bias": np.array([np.nan], np.float32)}
    reranker = Reranker(write_checkpoint(tmp_path / "nan", tensors=tensors), score_cache=tmp_path / "scores.db")
    for _ in range(2):
        with pytest.raises(NonFiniteScoreError, match=r"3 of 3 pairs .* is pair 0 .*counted without"):
            reranker.score(PAIRS)


@pytest.mark.numeric
def test_what_was_done_before_a_stop_is_kept(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("panda", "bear " * (i % 20)) for i in range(60)]
    expected = Reranker(tiny, deterministic=True).logits(pairs)
    reranker = Reranker(tiny, deterministic=True, score_cache=tmp_path / "scores.db")
    reranker.logits(pairs[:5])
    cancel, forward = threading.Event(), reranker.engine._forward
    calls: list[int] = []

    def counted(*batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            cancel.set()
        return forward(*batch)

    monkeypatch.setattr(reranker.engine, "_forward", counted)
    with pytest.raises(CancelledError, match=r"\d+ of 15 pairs were scored .* \d+ of 60 are known") as caught:
        reranker.logits(pairs, cancel=cancel)
    error = caught.value
    assert 3 * (5 + 3) <= len(error.indices) < 60
    assert set(range(5)) <= set(error.indices.tolist())
    np.testing.assert_array_equal(error.logits, expected.logits[error.indices])
    reranker.engine.apply(lambda *_: None, Batch(np.zeros((1, 1), np.int32)))  # until what was started is done
    done = len(calls)
    np.testing.assert_array_equal(reranker.logits(pairs).logits, expected.logits)
    assert len(calls) - done == 20 - len({i % 20 for i in error.indices.tolist()})  # the others alone


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


WRITER = """
import sys, logging
logging.basicConfig()
from mlx_rerank.scoring.score_cache import CachedScore, ScoreCache
from hashlib import sha256
cache = ScoreCache(sys.argv[1])
for n in range(int(sys.argv[2]), int(sys.argv[3])):
    cache.put({sha256(str(n).encode()).digest()[:16]: CachedScore(n / 4, n, 0, 9)})
    if n % 1000 == 0: print(n, flush=True)
"""


def test_processes_that_start_at_once_share_a_cache(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, tmp_path / "scores.db"]
    started = [
        subprocess.Popen(
            [*command, str(100 * i), str(100 * i + 100)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        for i in range(4)
    ]
    assert [process.communicate(timeout=60)[1] for process in started] == [b""] * 4
    assert ScoreCache(tmp_path / "scores.db").get([*scores(0, 400)]) == scores(0, 400)


def test_a_writer_that_is_killed_leaves_a_usable_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    command = [sys.executable, "-c", WRITER, tmp_path / "scores.db", "0", "1000000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"0\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    cache = ScoreCache(tmp_path / "scores.db")
    found = cache.get([*scores(0, 20_000)])
    assert len(found) > 10
    assert found == scores(0, len(found))
    cache.put({key(-1): CachedScore(1.0, 1, 0, 9)})
    assert cache.get([key(-1)])
    assert not caplog.records


def test_a_fork_does_not_use_its_parents_cache(tmp_path: Path) -> None:
    code = (
        "import os, sys; from mlx_rerank.scoring.score_cache import CachedScore, ScoreCache\n"
        "cache = ScoreCache(sys.argv[1]); cache.put({b'k': CachedScore(1.0, 0, 0, 9)})\n"
        "if not os.fork(): os._exit(len(cache.get([b'k'])))\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]), len(cache.get([b'k'])))"
    )
    assert run(code, tmp_path / "scores.db").stdout == "0 1\n"


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


def full(path: Path, count: int = 5_000) -> dict[bytes, CachedScore]:
    """Fill a cache and close it."""
    cache = ScoreCache(path)
    cache.put(scores(0, count))
    cache.close()
    return scores(0, count)


def overwrite(path: Path, seed: int) -> None:
    """Put random bytes into the middle of pages, all over a database."""
    random = Random(seed)
    with path.open("r+b") as file:
        for offset in range(4096 + 64, path.stat().st_size, 20_000):
            file.seek(offset + random.randrange(4000))
            file.write(random.randbytes(64))


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


def test_damage_to_one_score_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "scores.db"
    full(path, 3)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE scores SET value = (SELECT value FROM scores WHERE id = 2) WHERE id = 1")
    connection.close()
    assert ScoreCache(path).get([key(0)]) == {}
    assert "is damaged (a score is not what was stored)" in caplog.text


KEEPER = """
import sys
from hashlib import sha256
from mlx_rerank.scoring.score_cache import CachedScore, ScoreCache
keys = [sha256(str(n).encode()).digest()[:16] for n in range(5_000)]
cache = ScoreCache(sys.argv[1])
cache.put({bytes([n]): CachedScore(n, 0, 0, 9) for n in range(100)})
print("open", flush=True)
sys.stdin.readline()
print(len(cache.get(keys)))
"""


def test_processes_that_have_a_damaged_file_open_go_over_to_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "scores.db"
    stored = full(path)
    cache = ScoreCache(path)
    command = [sys.executable, "-c", KEEPER, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        overwrite(path, 1)
        assert ScoreCache(path).get([*stored]).items() <= stored.items()
        cache.put(stored)
        assert cache.get([*stored]) == stored
        answer, _ = process.communicate("\n", timeout=60)
    assert answer == "5000\n"
    assert cache.get([*stored]) == stored


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


@pytest.mark.parametrize("unusable", ["", "scores.db/below/a/file", "null\0"])
def test_an_unusable_path_turns_the_cache_off(
    tmp_path: Path, tiny: Path, caplog: pytest.LogCaptureFixture, unusable: str
) -> None:
    (tmp_path / "scores.db").write_text("")
    reranker = Reranker(tiny, score_cache=f"{tmp_path}/{unusable}")
    for _ in range(2):
        expected = Reranker(tiny).logits(PAIRS).logits
        np.testing.assert_allclose(reranker.logits(PAIRS).logits, expected, rtol=0, atol=bounds.COMPANY)
    assert [record.message.endswith("scoring goes on without it") for record in caplog.records] == [True]


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


LIMITED = """
import logging, os, resource, sys
logging.basicConfig(format="%(message)s")
from mlx_rerank.scoring.score_cache import CachedScore, ScoreCache
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
elif os.getuid() == 0:
    os.seteuid(65534)
cache = ScoreCache(sys.argv[1])
for start in range(0, 10_000, 1000):
    cache.put({n.to_bytes(16, "big"): CachedScore(1.0, 0, 0, 9) for n in range(start, start + 1000)})
print(len(cache.get([bytes(16)])))
"""


@pytest.mark.parametrize("limit", ["full", "read-only"])
def test_a_disk_that_takes_no_more_turns_the_cache_off(limit: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "scores.db"
        full(path, 10)
        path.chmod(0o444)
        Path(directory).chmod(0o555 if limit == "read-only" else 0o755)
        result = run(LIMITED, path, limit)
        Path(directory).chmod(0o755)
        assert result.stdout == "0\n", result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert "scoring goes on without it" in result.stderr
        if limit == "full":
            assert ScoreCache(path).get([*scores(0, 10)]) == scores(0, 10)


texts = st.text(st.sampled_from("abc panda熊 "), max_size=12)


@pytest.fixture(scope="module")
def deterministic(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Reranker, Reranker]:
    path = tmp_path_factory.mktemp("scores") / "scores.db"
    return Reranker(tiny, deterministic=True), Reranker(tiny, deterministic=True, score_cache=path)


@pytest.mark.numeric
@given(st.lists(st.tuples(texts, texts), max_size=8), st.integers(5, 66 - 2), st.sampled_from(["truncate", Windows()]))
@settings(max_examples=60, deadline=None)
def test_with_and_without_a_cache_is_the_same(
    deterministic: tuple[Reranker, Reranker],
    pairs: list[tuple[str, str]],
    max_length: int,
    long_documents: Literal["truncate"] | Windows,
) -> None:
    assume(max_length == 64 or long_documents == "truncate")
    limits = Limits(max_length, long_documents=long_documents)
    without, cached = (reranker.logits(pairs, limits=limits) for reranker in deterministic)
    np.testing.assert_array_equal(cached.logits, without.logits)
    np.testing.assert_array_equal(cached.truncated_tokens, without.truncated_tokens)
    np.testing.assert_array_equal(cached.spans, without.spans)


def test_what_is_computed_is_kept_even_where_another_pair_is_not_finite(
    tmp_path: Path, tiny_reranker: Reranker
) -> None:
    cached = CachedLogits(ScoreCache(tmp_path / "scores.db"), COMPUTATION, SIGMOID)
    asked: list[int] = []

    def compute(pairs: object) -> object:
        scored = tiny_reranker.logits(pairs)  # type: ignore[arg-type]
        asked.append(len(scored.logits))
        scored.logits[1:2] = np.nan
        return scored

    for _ in range(2):
        found = cached.complete(PAIRS, Limits(64), compute)  # type: ignore[arg-type]
        assert np.isfinite(found.logits).tolist() in ([True, False, True, True], [True, True, True, True])
    assert asked == [3, 1]
