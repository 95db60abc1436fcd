"""The cores that a process may use: whichever way its share was said, the least holds, and every face keeps to it."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_rerank import CrossEncoder, FlagReranker, Reranker
from mlx_rerank.device import blas, cores, lanes
from mlx_rerank.integrations import load
from mlx_rerank.pairs.batching import Batch
from mlx_rerank.scoring.loaded import ModelOptions
from mlx_rerank.server.pool import Pool
from mlx_rerank.server.served import ModelSpec

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nothing is divided")
FACES: dict[str, Callable[..., Any]] = {
    "Reranker": Reranker,
    "first stage": lambda model, **own: Reranker(model, first_stage=model, **own).first_stage,
    "FlagReranker": lambda model, **own: FlagReranker(str(model), max_length=64, **own).reranker,
    "CrossEncoder": lambda model, **own: CrossEncoder(model, max_length=64, **own).reranker,
    "integrations": lambda model, **own: load(model, own),
}


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine of 16 cores that nothing divides."""
    for name in cores.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(cores, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "_MOUNT", tmp_path / "mount")


def test_nothing_is_said() -> None:
    assert cores.cores() == 16


@pytest.mark.parametrize("name", cores.VARIABLES)
@pytest.mark.parametrize(
    ("value", "expected"), [("3", 3), ("64", 16), ("4,2", 4), ("", 16), ("0", 16), ("-1", 16), ("all", 16), (" 2 ", 2)]
)
def test_variables(monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: int) -> None:
    monkeypatch.setenv(name, value)
    assert cores.cores() == expected


def test_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert cores.cores() == 2


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b", {"a/b/cpu.max": "300000 100000"}, 3),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1),
        ("0::/a", {"a/cpu.max": "max 100000"}, 16),
        ("0::/elsewhere", {"cpu.max": "200000 100000"}, 2),  # a container, which sees its own group as the root
        ("0::/../..", {"cpu.max": "200000 100000"}, 2),
        ("0::/a", {"a/cpu.max": "1000 100000"}, 1),
        ("0::/a", {"a/cpu.max": "nonsense"}, 16),
        ("nonsense", {}, 16),
        (
            "5:memory:/m\n4:cpu,cpuacct:/a\n1:name=systemd:/a\n0::/",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "400000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
            4,
        ),
        ("4:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 16),
    ],
)
def test_quotas_of_control_groups(tmp_path: Path, groups: str, files: Mapping[str, str], expected: int) -> None:
    (tmp_path / "cgroup").write_text(groups + "\n")
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert cores.cores() == expected


@linux
@pytest.mark.parametrize(("threads", "asked"), [(None, [4]), (3, [3]), (1, [1])])
def test_products_have_no_more_threads_than_the_share(
    monkeypatch: pytest.MonkeyPatch, threads: int | None, asked: list[int]
) -> None:
    told: list[int] = []
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(blas, "threads", lambda: 16)
    monkeypatch.setattr(blas, "set_threads", told.append)
    one = lanes.Lanes(mx.Device(mx.cpu), threads)
    one.each(lambda ids, *_: mx.zeros(ids.shape), [Batch(np.zeros((1, 10), np.int32))])
    assert told == asked


@linux
@pytest.mark.parametrize("face", FACES)
def test_every_face_keeps_to_its_share(tiny: Path, monkeypatch: pytest.MonkeyPatch, face: str) -> None:
    made = FACES[face]
    own: dict[str, Any] = {"devices": "cpu"} if face == "FlagReranker" else {"device": "cpu"}
    assert made(tiny, **own).model.engine.side_by_side == 8
    assert made(tiny, cpu_threads=2, **own).model.engine.side_by_side == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert made(tiny, **own).model.engine.side_by_side == 3
    assert made(tiny, cpu_threads=5, **own).model.engine.side_by_side == 5


def test_a_server_hands_it_on(tiny: Path) -> None:
    pool = Pool([ModelSpec.parse(str(tiny))], options=ModelOptions(cpu_threads=2))
    assert pool.default.options.cpu_threads == 2
