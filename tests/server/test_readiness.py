"""What is made ready for requests: on a GPU memory that stays where it is, and kernels of every form of a batch."""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from typer.testing import CliRunner

from mlx_rerank import Reranker
from mlx_rerank.cli import app
from mlx_rerank.device import memory, thread
from mlx_rerank.pairs.batching import Batch
from mlx_rerank.server import readiness, served
from mlx_rerank.server.readiness import warm
from server.conftest import Connect

REFRESH = "MLX_METAL_RESIDENCY_REFRESH_INTERVAL_MS"


class OnGpu(Reranker):
    """A model that says it is on a GPU."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.device = "gpu"


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have Metal tell of 8 GB; return the wired limits that are set from then on."""
    found: list[int] = []
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 8 << 30})
    monkeypatch.setattr(mx, "set_wired_limit", found.append)
    monkeypatch.setattr(thread, "_IDLE", thread._IDLE)
    return found


@pytest.mark.anyio
async def test_what_is_loaded_stays_in_the_gpus_memory(
    connect: Connect, limits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "Reranker", OnGpu)
    async with connect() as (_, handler):
        (loaded,) = limits
        assert loaded >= readiness._ROOM + 100_000  # the tiny model's weights
        assert thread._IDLE == readiness._IDLE
        await handler.pool.default.unload()
        assert limits[1] < loaded


@pytest.mark.anyio
async def test_on_a_cpu_nothing_is_held(connect: Connect, limits: list[int]) -> None:
    async with connect():
        assert limits == []
        assert thread._IDLE < readiness._IDLE


def test_no_more_is_held_than_there_may_be(limits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    memory.keep_in_place(100 << 30)
    assert limits == [8 << 30]
    monkeypatch.setattr(mx, "device_info", dict)  # as where there is no Metal
    memory.keep_in_place(1)
    assert limits == [8 << 30]


def test_every_form_of_a_batch_is_warmed(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reranker, seen = Reranker(tiny), list[tuple[bool, bool]]()
    run = reranker.engine.run

    def noting(groups: Iterable[Sequence[Batch]], *rest: Any) -> Iterable[np.ndarray]:
        groups = list(groups)
        seen.extend((batch.input_ids.shape[1] % 32 == 0, batch.attention_mask is None) for (batch,) in groups[-4:])
        return run(groups, *rest)

    monkeypatch.setattr(reranker, "logits", lambda *_, **__: None)  # whose batches have any form
    monkeypatch.setattr(reranker.engine, "run", noting)
    warm(reranker)
    assert sorted(seen) == [(False, False), (False, True), (True, False), (True, True)]


@pytest.mark.parametrize(("given", "expected"), [(None, "1000"), ("5", "5")])
def test_serve_has_mlx_refresh_what_is_held(given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["serve", "--install-service"]
    monkeypatch.setattr(sys, "argv", ["mlx-rerank", *command])
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "executable", "/opt/mlx-rerank/bin/python")
    monkeypatch.setenv(REFRESH, given or "to be put back")
    if given is None:
        monkeypatch.delenv(REFRESH)
    assert CliRunner().invoke(app, command).exit_code == 0
    assert os.environ[REFRESH] == expected
