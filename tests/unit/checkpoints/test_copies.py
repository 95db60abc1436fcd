"""Converted copies of hub models: when one is made, what it saves, and that nothing fails because of one."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from unittest.mock import Mock

import bounds
import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from fake_hub import COMMIT, FakeHub
from safetensors.numpy import load_file

from mlx_rerank import Reranker
from mlx_rerank.checkpoints import copies
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.config import read_config
from mlx_rerank.checkpoints.copies import cache_directory
from mlx_rerank.checkpoints.hub import public_name, repo_of
from mlx_rerank.convert import convert
from mlx_rerank.errors import MissingDependencyError, OutputError, WeightsError

PAIRS = [("panda", "the bear"), ("panda", "what is panda"), ("", "熊猫吃竹子")]
OTHER = "1" * 40  # a commit


def made(place: Path) -> Path:
    """Return the only copy."""
    (copy,) = place.glob("[!.]*")
    return copy


def logits(reranker: Reranker) -> np.ndarray:
    return reranker.logits(PAIRS).logits


@pytest.mark.numeric
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_second_start_reads_the_copy_and_scores_the_same_bits(
    start: Callable[..., Reranker], tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    in_memory = logits(Reranker(tiny, dtype=dtype))
    np.testing.assert_array_equal(logits(start(dtype)), in_memory)
    copy = made(place)
    config = read_config(copy)
    assert re.fullmatch(f"{COMMIT}-[0-9a-f]{{16}}-{dtype}-v{copies.FORMAT}", copy.name)
    assert (config["dtype"], config["mlx_rerank"]["source"], config["mlx_rerank"]["revision"]) == (
        dtype, "test/tiny", COMMIT,
    )  # fmt: skip
    monkeypatch.setattr("mlx_rerank.checkpoints.weights.port", None)  # which reads the hub's own weights
    np.testing.assert_array_equal(logits(start(dtype)), in_memory)


def test_no_copy_of_what_loads_as_fast_without(
    start: Callable[..., Reranker], tiny: Path, tmp_path: Path, hub: FakeHub
) -> None:
    start("float32")
    Reranker(tiny, dtype="float16")  # not from the hub
    hub.publish("test/converted", convert(tiny, tmp_path / "converted", dtype="float32"))
    Reranker("test/converted", dtype="float16", cache_dir=tmp_path / "hub")
    assert not (tmp_path / "copies").exists()


@pytest.mark.parametrize("off", ["", "off", " OFF "])
def test_turned_off(
    start: Callable[..., Reranker], place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, off: str
) -> None:
    monkeypatch.setenv("MLX_RERANK_CACHE", off)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    start()
    assert not place.exists()
    assert not (tmp_path / "xdg").exists()


def test_where_copies_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLX_RERANK_CACHE", "~/mine")
    assert cache_directory() == tmp_path / "mine"
    monkeypatch.delenv("MLX_RERANK_CACHE")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_directory() == tmp_path / "Library" / "Caches" / "mlx-rerank"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_directory() == tmp_path / ".cache" / "mlx-rerank"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/mine")
    assert cache_directory() == Path("/var/mine/mlx-rerank")


def test_names_of_directories_in_the_hubs_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--BAAI--bge-reranker-v2-m3" / "snapshots" / COMMIT
    assert repo_of(snapshot) == public_name(snapshot) == "BAAI/bge-reranker-v2-m3"
    assert repo_of(tmp_path) is None
    assert repo_of(tmp_path / "datasets--a--b" / "snapshots" / COMMIT) is None
    assert repo_of(tmp_path / "models--a--b" / "blobs" / COMMIT) is None


def test_torch_weights_are_read_once(
    hub: FakeHub, tmp_path: Path, tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    served = shutil.copytree(tiny, tmp_path / "served")
    tensors = load_file(served / "model.safetensors")
    torch.save({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, served / "pytorch_model.bin")
    (served / "model.safetensors").unlink()
    hub.publish("test/tiny", served)
    first = logits(Reranker("test/tiny", cache_dir=tmp_path / "hub", dtype="float32"))
    assert "-float32-" in made(place).name
    monkeypatch.setitem(sys.modules, "torch", None)
    second = logits(Reranker("test/tiny", cache_dir=tmp_path / "hub", dtype="float32"))
    np.testing.assert_allclose(second, first, rtol=0, atol=bounds.COMPANY)
    with pytest.raises(MissingDependencyError):
        Reranker("test/tiny", cache_dir=tmp_path / "hub", dtype="float16")


@pytest.mark.parametrize("damage", ["truncated", "no weights", "no config", "other shape"])
def test_a_damaged_copy_is_made_again(
    start: Callable[..., Reranker], place: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    expected = logits(start())
    weights = made(place) / "model.safetensors"
    size = weights.stat().st_size
    if damage == "truncated":
        os.truncate(weights, size // 2)
    elif damage == "other shape":
        write_checkpoint(weights.parent, TINY | {"num_hidden_layers": 1}, random_tensors(TINY))
    else:
        (weights if damage == "no weights" else weights.with_name("config.json")).unlink()
    np.testing.assert_array_equal(logits(start()), expected)
    assert weights.stat().st_size == size
    assert len(caplog.records) == 1
    assert "the converted copy of a model is damaged, and removed" in caplog.text


def test_what_nobody_used_for_a_month_is_removed(start: Callable[..., Reranker], place: Path) -> None:
    start()
    copy, begin = made(place), time.time()
    os.utime(copy, (0, 0))
    start()  # uses it
    kept, unused = f"{OTHER}-float16-v{copies.FORMAT}", f"{OTHER}-bfloat16-v1"
    being_written = f".{kept}-0123abcd"  # perhaps by another machine
    for name in (kept, unused, being_written):
        (place / name).mkdir()
    os.utime(place / unused, (begin, begin - 31 * 24 * 3600))
    start("bfloat16")
    assert {path.name for path in place.iterdir()} == {
        copy.name, copy.name.replace("-float16-", "-bfloat16-"), kept, being_written, ".lock",
    }  # fmt: skip


def test_a_copy_that_may_only_be_read(
    start: Callable[..., Reranker], place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected, copy = logits(start()), made(place)
    monkeypatch.setattr("mlx_rerank.checkpoints.copies.os.utime", Mock(side_effect=PermissionError("not yours")))
    monkeypatch.setattr("mlx_rerank.checkpoints.copies.write_converted", Mock(side_effect=AssertionError))
    opened = Mock(wraps=Checkpoint.open)
    monkeypatch.setattr(Checkpoint, "open", opened)
    np.testing.assert_array_equal(logits(start()), expected)
    assert opened.call_args.args == (copy,)
    assert not caplog.records


def test_a_model_that_dtype_cannot_hold_says_so_and_nothing_else(
    hub: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = random_tensors(TINY) | {"classifier.out_proj.bias": np.array([1e6], np.float32)}
    hub.publish("test/tiny", write_checkpoint(tmp_path / "served", tensors=tensors))
    with pytest.raises(WeightsError, match="beyond float16's range"):
        Reranker("test/tiny", cache_dir=tmp_path / "hub", dtype="float16")
    assert not caplog.records


@pytest.mark.parametrize("unusable", ["/proc/none", "file/below", "~nosuchuser/copies", "null\0"])
def test_where_nothing_can_be_written_it_is_converted_in_memory(
    start: Callable[..., Reranker], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, unusable: str,
) -> None:  # fmt: skip
    (tmp_path / "file").write_text("")
    absolute = unusable if unusable[0] in "/~" else f"{tmp_path}/{unusable}"
    if "\0" in unusable:
        monkeypatch.setattr("mlx_rerank.checkpoints.copies.cache_directory", lambda: Path(absolute))
    else:
        monkeypatch.setenv("MLX_RERANK_CACHE", absolute)
    np.testing.assert_array_equal(logits(start()), logits(Reranker(tiny, dtype="float16")))
    assert len(caplog.records) == 1
    assert "every start converts it anew; to stay without, set MLX_RERANK_CACHE=off" in caplog.text


FULL = """
import logging, resource, sys
logging.basicConfig(format="%(message)s")
from mlx_rerank import Reranker
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
print(Reranker(sys.argv[1], dtype="float16").score("panda", "the bear"))
"""


def test_a_full_disk(start: Callable[..., Reranker], place: Path) -> None:
    directory = start("float32").encoder and next(place.parents[2].glob("hub/models--test--tiny/snapshots/*"))
    result = subprocess.run([sys.executable, "-c", FULL, directory], capture_output=True, text=True, check=False)
    assert float(result.stdout) == start().score("panda", "the bear"), result.stderr
    assert "is kept" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert {path.name for path in place.iterdir()} == {made(place).name, ".lock"}  # which the first line has made


def test_an_error_of_any_kind(
    start: Callable[..., Reranker], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for error in (OutputError("no"), OSError("no locks"), RuntimeError("write")):

        def fails(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("mlx_rerank.checkpoints.copies.write_converted", fails)
        start()
    assert len(caplog.records) == 3


def test_scores_are_found_whether_the_model_or_its_copy_was_loaded(
    hub: FakeHub, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish("test/tiny", tiny)
    for number in range(2):
        reranker = Reranker("test/tiny", dtype="float16", cache_dir=tmp_path / "hub", score_cache=tmp_path / "s.db")
        if number:
            monkeypatch.setattr(reranker.encoder, "encode", None)
        reranker.logits(PAIRS)


def test_the_format_is_the_one_that_is_numbered(tmp_path: Path) -> None:
    shapes = {name: tensor.shape for name, tensor in random_tensors(TINY).items()}
    exact = {
        name: ((np.arange(np.prod(shape)) + i) % 61 / 8).reshape(shape).astype(np.float32)
        for i, (name, shape) in enumerate(sorted(shapes.items()))
    }
    directory = convert(write_checkpoint(tmp_path / "exact", tensors=exact), tmp_path / "copy", dtype="float16")
    found = sha256(repr(sorted(json.loads((directory / "config.json").read_text())["mlx_rerank"])).encode())
    for name, tensor in sorted(load_file(directory / "model.safetensors").items()):
        found.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + tensor.tobytes())
    hint = "convert writes other weights or records than it did: add one to copies.FORMAT, and put the new hash here"
    assert (copies.FORMAT, found.hexdigest()[:16]) == (3, "55a4f1b752d07c3e"), hint
