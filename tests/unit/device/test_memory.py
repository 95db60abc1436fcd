"""Memory: what is reported, what is given back and when, and weights that are unloaded and come back."""

import ctypes
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import bounds
import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TINY, write_checkpoint

from mlx_rerank import Reranker
from mlx_rerank.cli import describing
from mlx_rerank.device import memory, thread
from mlx_rerank.device.memory import usage
from mlx_rerank.device.thread import DeviceThread, device_thread
from mlx_rerank.errors import CheckpointError
from mlx_rerank.pairs.limits import Limits

PAIRS = [("panda", "the bear"), ("what is panda", ""), ("熊", "a bear is the panda")]


def test_usage_follows_what_is_held() -> None:
    mx.reset_peak_memory()
    before = usage()
    held = mx.ones((5_000_000,), mx.float32)
    mx.eval(held)
    during = usage()
    assert 20e6 <= during.mlx_active - before.mlx_active < 21e6
    del held
    after = usage()
    assert after.mlx_active - before.mlx_active < 1e6
    assert after.mlx_peak >= during.mlx_active
    assert after.process_peak >= during.process_peak > 20e6
    if after.process_resident is not None:
        assert during.process_resident is not None
        assert 20e6 < during.process_resident <= during.process_peak


@pytest.mark.parametrize(("platform", "unit"), [("darwin", 1), ("freebsd14", 1024)])
def test_the_peak_where_there_is_no_proc(platform: str, unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(memory, "_STATUS", Path("/no/such/file"))
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform=platform))
    found = usage()
    assert found.process_resident is None
    assert found.process_peak == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def test_the_buffer_cache_is_bounded_after_each_batch(tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_reranker.score(PAIRS)
    monkeypatch.setattr(memory, "CACHE_LIMIT", 0)
    tiny_reranker.score(PAIRS)
    assert mx.get_cache_memory() < 1e5  # what the last batch's own ids leave
    monkeypatch.setattr(memory, "CACHE_LIMIT", 2**40)
    tiny_reranker.score(PAIRS)
    device_thread().submit(lambda: mx.eval(mx.ones((3_000_000,)) + 1)).result()
    tiny_reranker.score(PAIRS)
    if mx.get_cache_memory() > 1e6:
        monkeypatch.setattr(memory, "CACHE_LIMIT", 1_000_000)
        tiny_reranker.score(PAIRS)
        assert mx.get_cache_memory() <= 1e6
    else:
        pytest.fail("MLX kept no buffer, so that this test shows nothing")


def test_the_cache_grows_with_the_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for gigabytes, expected in ((4, 0.5), (8, 0.5), (16, 1), (128, 8)):
        monkeypatch.setattr(memory, "installed", lambda gigabytes=gigabytes: gigabytes << 30)
        assert memory.cache_limit(with_gpu=True) == expected * 2**30
        assert memory.cache_limit(with_gpu=False) == 2**29


def wait_for(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_an_idle_thread_gives_memory_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr(thread, "_IDLE", 0.05)
    monkeypatch.setattr(memory, "give_back", lambda: given.append(threading.current_thread().name))
    monkeypatch.setattr("atexit.register", lambda _: None)
    own = DeviceThread()
    wait_for(lambda: bool(given))
    time.sleep(0.15)
    assert given == ["mlx-rerank"]  # and not again while it stays idle
    for _ in range(20):
        assert own.submit(lambda: "alive").result() == "alive"
    assert len(given) == 1
    wait_for(lambda: len(given) > 1)
    assert len(given) == 2


def test_a_long_job_is_no_idle_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[float] = []
    monkeypatch.setattr(thread, "_IDLE", 0.05)
    monkeypatch.setattr(memory, "give_back", lambda: ends.append(time.monotonic()))
    monkeypatch.setattr("atexit.register", lambda _: None)
    own = DeviceThread()
    wait_for(lambda: bool(ends))
    own.submit_parts(int, int, lambda _: (time.sleep(0.15), ends.append(time.monotonic()))).result()
    wait_for(lambda: len(ends) == 3)
    assert ends[2] - ends[1] >= 0.05


def test_giving_back_empties_the_cache() -> None:
    kept = mx.ones((3_000_000,)) + 1
    mx.eval(kept)
    del kept
    assert mx.get_cache_memory() > 1e6
    memory.give_back()
    assert mx.get_cache_memory() == 0


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("wide"), TINY | {"intermediate_size": 20_000})


@pytest.mark.numeric
@pytest.mark.parametrize("embeddings", ["resident", "mapped"])
def test_unloaded_weights_come_back_by_themselves(wide: Path, embeddings: str) -> None:
    reranker = Reranker(wide, dtype="float32", embeddings=embeddings)
    expected = reranker.score(PAIRS)
    assert reranker.loaded
    before = mx.get_active_memory()
    reranker.unload()
    assert not reranker.loaded
    assert before - mx.get_active_memory() > 2 * 2 * 20_000 * 64 * 4
    reranker.unload()  # twice is not once too often
    np.testing.assert_allclose(reranker.score(PAIRS), expected, rtol=0, atol=bounds.SCORE)
    assert reranker.loaded


def test_an_error_of_loading_again_is_the_usual_one(tiny: Path, tmp_path: Path) -> None:
    source = shutil.copytree(tiny, tmp_path / "source")
    reranker = Reranker(source)
    expected = reranker.score(PAIRS)
    (source / "model.safetensors").rename(tmp_path / "elsewhere")
    np.testing.assert_allclose(reranker.score(PAIRS), expected, rtol=0, atol=bounds.SCORE)
    reranker.unload()
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"has changed since it was opened \(model\.safetensors\)"):
            reranker.score(PAIRS)
    assert not reranker.loaded
    (tmp_path / "elsewhere").rename(source / "model.safetensors")
    np.testing.assert_allclose(Reranker(source).score(PAIRS), expected, rtol=0, atol=bounds.SCORE)


@pytest.mark.numeric
def test_unloading_while_others_score(tiny: Path) -> None:
    reranker = Reranker(tiny, token_budget=8)
    expected = reranker.score(PAIRS * 3)
    score: Callable[[int], np.ndarray] = lambda _: reranker.score(PAIRS * 3)  # noqa: E731
    with ThreadPoolExecutor(3) as threads:
        found = threads.map(score, range(30))
        for _ in range(10):
            reranker.unload()
        for scores in found:
            np.testing.assert_allclose(scores, expected, rtol=0, atol=bounds.SCORE)


def test_tokens_are_counted_without_padding(tiny: Path) -> None:
    reranker = Reranker(tiny)
    reranker.score(PAIRS)
    assert reranker.engine.tokens == reranker.encoder.encode(PAIRS, Limits(64)).lengths.sum()


def test_info_says_what_the_weights_take(wide: Path) -> None:
    facts = describing.describe(str(wide))
    assert facts["embeddings"] == "resident"
    for embeddings, expected in facts["weights_bytes"].items():
        before = mx.get_active_memory()
        reranker = Reranker(wide, dtype=facts["default_dtype"], embeddings=embeddings)
        assert expected <= mx.get_active_memory() - before < expected * 1.01
        del reranker
    assert facts["weights_bytes"]["resident"] - facts["weights_bytes"]["mapped"] == 120 * 64 * (
        4 if facts["default_dtype"] == "float32" else 2
    )


def test_info_measures(tiny: Path) -> None:
    found = describing.measure(str(tiny))
    assert found.keys() == {"mlx_active", "mlx_peak", "process_resident", "process_peak"}
    assert found["mlx_peak"] >= found["mlx_active"] >= describing.describe(str(tiny))["weights_bytes"]["resident"]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library gives memory back by itself")
def test_giving_back_trims_the_c_librarys_heap() -> None:
    code = (
        "from mlx_rerank.device import memory\n"
        "blocks = [bytes(1000) for _ in range(60_000)]\n"
        "last, full = blocks.pop(), memory.usage().process_resident\n"
        "del blocks\n"
        "memory.give_back()\n"
        "print(full - memory.usage().process_resident)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) > 50e6
