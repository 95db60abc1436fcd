"""The benchmark of the server, run small."""

import json
from pathlib import Path

import pytest

from mlx_rerank.bench import serving
from mlx_rerank.bench.serving import Options
from mlx_rerank.errors import WorkerError


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = serving.run(Options(requests=4, rounds=2, clients=3, seconds=1.0, threads=1, seed=25))
    assert json.loads(json.dumps(facts)) == facts
    assert len(facts["rounds"]) == 2
    assert sum(facts["documents_a_request"]) == facts["pairs"]
    load = facts["load"]
    assert set(load["statuses"]) == {"200"}
    assert load["statuses"]["200"] == len(load["replies"]) >= 3
    assert load["deviation"] < 1e-4
    assert 0 < load["latency"]["p50"] <= load["latency"]["p99"]
    assert min(load["memory"]) > 50e6
    assert load["seconds"] >= max(1.0, *(reply["seconds"] for reply in load["replies"]))
    scored = sum(reply["pairs"] for reply in load["replies"])
    assert load["pairs_per_second"] == pytest.approx(scored / load["seconds"])
    serving.print_tables(facts)
    shown = capsys.readouterr().out
    assert "library, all pairs in one call" in shown
    assert "3 clients for 1 s" in shown


def test_a_server_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_START", 20.0)
    with pytest.raises(WorkerError, match="the server was not ready"), serving.serving(Options(model="nothing"), "cpu"):
        pass


def test_requests_are_small_and_large() -> None:
    sizes = serving.request_sizes(1000, seed=0)
    assert min(sizes) == 1
    assert 190 < max(sizes) <= 200
    assert 300 < sum(size <= 10 for size in sizes) < 600
    assert sizes == serving.request_sizes(1000, seed=0)
