"""A score cache that several processes have open, one of which may be killed, forked or out of disk."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bounds
import numpy as np
import pytest
from score_caches import full, key, overwrite, scores

from mlx_rerank import Reranker
from mlx_rerank.scoring.score_cache import CachedScore, ScoreCache


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


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
