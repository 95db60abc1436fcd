"""The benchmarks as a person runs them, on a tiny checkpoint: real processes, peers, and what goes wrong with them."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import pytest
from checkpoints import TINY, embedded_tokenizer, random_tensors, write_checkpoint
from commands import run_here

from mlx_rerank.bench import contenders, roofline
from mlx_rerank.bench.contenders import OWN, Contender
from mlx_rerank.bench.process import Answer, Worker
from mlx_rerank.bench.race import Race
from mlx_rerank.bench.texts import Workload
from mlx_rerank.errors import WorkerError

PAIRS = [("what is the panda", "the panda is a bear"), ("what is the bear", "an animal that eats")]
WORK = Workload("two pairs", [PAIRS], tokens=40, padded=40)
PEERS = [OWN, "FlagEmbedding", "sentence-transformers", "PyTorch reference"]
# What Python runs as each process starts: a worker notes whether the package was there when torch was looked for. What
# is imported is there to stay, and to look for garbage in it takes a fifth of the time.
WATCH = """
import gc, os, sys

class Watch:
    def find_spec(self, name, *_):
        if name == "torch" and sys.argv[0].endswith("worker.py"):
            with open(os.environ["WATCHED"], "a", encoding="utf-8") as file:
                print(sys.argv[1], "mlx_rerank" in sys.modules, sep="\\t", file=file)

sys.meta_path.insert(0, Watch())
gc.disable()
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mlx_rerank", "bench", *arguments]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in the BEIR layout with texts of different lengths."""
    directory = tmp_path_factory.mktemp("data")
    rows = [{"_id": str(i), "text": f"the panda {i} is " + "a bear that is " * (i % 5)} for i in range(40)]
    (directory / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (directory / "queries.jsonl").write_text('{"_id": "q", "text": "what is the panda"}\n')
    return directory


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny shape with a real XLM-RoBERTa tokenizer, which the peers' own code relies on."""
    config = TINY | {"vocab_size": 64000}
    return write_checkpoint(
        tmp_path_factory.mktemp("models") / "small", config, random_tensors(config), embedded_tokenizer()
    )


@dataclass(frozen=True)
class Raced:
    """What `bench speed` wrote and printed, where, and whether the package was in each library's process."""

    written: str
    table: str
    places: tuple[Path, Path]
    watched: dict[str, set[str]]


@pytest.fixture(scope="module")
def raced(small: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Raced:
    """A run beside the peers, which take seconds to start: once for all tests."""
    work = tmp_path_factory.mktemp("raced")
    (work / "sitecustomize.py").write_text(WATCH)
    out, watched = work / "out.json", work / "watched"
    few = ["--rounds", "1", "--candidates", "6", "--lengths", "32,512", "--tokens", "64", "--scaling", "2,8"]
    chosen = [word for name in PEERS for word in ("--contender", name)]
    places = ["--model", str(small), "--data", str(data), "--output", str(out)]
    path = os.pathsep.join(filter(None, (str(work), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        command("speed", *few, *chosen, *places, "--threads", "1"), capture_output=True, text=True, check=False,
        timeout=240, env=os.environ | {"PYTHONPATH": path, "WATCHED": str(watched)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = defaultdict(set)
    for line in watched.read_text("utf-8").splitlines():
        contender, there = line.split("\t")
        seen[json.loads(contender)["library"]].add(there)
    return Raced(out.read_text(), done.stdout, (work, data), dict(seen))


def test_speed_beside_the_peers(raced: Raced) -> None:
    facts, peers = json.loads(raced.written), PEERS
    assert [row["name"] for row in facts["contenders"]] == peers
    assert {(row["status"], row["computed_in"]) for row in facts["contenders"]} == {("measured", "float32")}
    assert list(facts["summary"]) == ["6 candidates", "32 tokens"]  # the tiny model has no 512 positions
    for found in facts["summary"].values():
        assert set(found) == set(peers)
        assert found[OWN]["times_mlx_rerank"]["median"] == 1
        assert {name: found[name]["max_delta_logit"] for name in peers[:3]} == pytest.approx(
            dict.fromkeys(peers[:3], 0), abs=1e-4
        )
        assert all(found[name]["pairs_per_second"]["median"] > 0 for name in peers)
    assert set(facts["cold_start_seconds"]) == set(peers)
    assert list(facts["seconds_per_pair"]) == ["2 per call", "8 per call"]
    sizes = {row["name"]: row for row in facts["workloads"]}
    assert sizes["32 tokens"]["tokens"] == 64
    turns = {(row["contender"], row["workload"]) for row in facts["rounds"]}
    assert len(turns) == len(facts["rounds"]) == 4 * 3 + 2  # of the two sizes only mlx-rerank's
    assert facts["texts"] == raced.places[1].name
    assert "--model small" in facts["command"]
    assert not [place for place in raced.places if str(place) in raced.written]
    for text in (*peers, "6 candidates: 6 pairs in 1 calls a round", "cold start", "8 per call"):
        assert text in raced.table


@pytest.mark.parametrize("library", ["flag_embedding", "sentence_transformers"])
def test_torch_gets_no_blas_of_this_package(raced: Raced, library: str) -> None:
    assert raced.watched[library] == {"False"}
    assert "True" in raced.watched["reference"]  # whose process is the package's own


def test_a_peer_that_is_not_installed_is_listed(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlx_rerank.bench.speed import Options, print_tables, run

    monkeypatch.setitem(contenders._NEEDS, "flag_embedding", ("no_such_module",))
    few = {"candidates": (2,), "lengths": (), "scaling": (), "rounds": 1, "contenders": (OWN, "FlagEmbedding")}
    facts = run(Options(model=str(tiny), **few))
    assert [row["status"] for row in facts["contenders"]] == ["measured", "not installed: no_such_module"]
    print_tables(facts)
    assert "not installed: no_such_module" in capsys.readouterr().out


def test_a_worker_that_dies_tells_why_and_others_go_on(tiny: Path) -> None:
    alive = Contender(OWN, "mlx_rerank", str(tiny), 64)
    unborn = Contender("unborn", "mlx_rerank", "/no/such/directory", 64)
    race = Race([unborn, alive], threads=1)
    results = race.run([WORK], [], rounds=1)
    assert "unborn ended with code 1" in results.problems["unborn"]
    assert "'/no/such/directory' is not a directory" in results.problems["unborn"]
    assert set(results.logits) == {OWN}

    with Worker(alive, 1) as worker:
        answer = worker.score(PAIRS)
        assert len(answer.logits) == 2
        assert 10**7 < answer.process_peak < 10**11
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="mlx-rerank ended with code -9"):
            worker.score(PAIRS)


def test_a_contender_that_dies_in_a_round_is_dropped(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score = Worker.score
    turns = []

    def once(self: Worker, pairs: list) -> object:
        turns.append(name := self.contender.name)
        if name == "short-lived" and turns.count(name) == 2:  # its first was not measured
            os.kill(self.pid, signal.SIGKILL)
        return score(self, pairs)

    monkeypatch.setattr(Worker, "score", once)
    both = [Contender(name, "mlx_rerank", str(tiny), 64) for name in ("short-lived", OWN)]
    results = Race(both, threads=1).run([WORK], [], rounds=3)
    assert list(results.problems) == ["short-lived"]
    assert turns.count("short-lived") == 2
    assert len(results.seconds(OWN, WORK.name)) == 3


def test_interrupting_leaves_no_worker(tiny: Path, tmp_path: Path) -> None:
    words = ["--model", str(tiny), "--contender", OWN, "--lengths", "32", "--rounds", "10000"]
    words += ["--output", str(tmp_path / "out.json")]
    process = subprocess.Popen(command("speed", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        children = []
        for _ in range(300):
            children = psutil.Process(process.pid).children(recursive=True)
            if len(children) > 1:  # the one that stays, and one that starts
                break
            time.sleep(0.05)
        assert children
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (130, b"", b"")
    _, alive = psutil.wait_procs(children, timeout=10)  # one that has just started may end a moment after its parent
    assert not alive
    assert list(tmp_path.iterdir()) == []


def test_a_worker_ends_with_its_parent(tiny: Path) -> None:
    code = (
        "import os, signal\n"
        "from mlx_rerank.bench.contenders import Contender\n"
        "from mlx_rerank.bench.process import Worker\n"
        f"worker = Worker(Contender('own', 'mlx_rerank', {str(tiny)!r}, 64), 1)\n"
        "print(worker.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(timeout=20)


def test_memory(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = ("flag_embedding", "sentence_transformers", "onnxruntime")  # slow to start; the race shows that they do
    for library in absent:
        monkeypatch.setitem(contenders._NEEDS, library, ("no_such_module",))
    out = tmp_path / "out.json"
    few = ["--shapes", "12", "--warm-up", "4", "--tokens", "128", "--threads", "1"]
    table = run_here("bench", "memory", "--model", str(tiny), *few, "--output", str(out)).stdout
    facts = json.loads(out.read_text())
    assert len(facts["batches"]) == 12
    assert facts["distinct_shapes"] > 6
    assert facts["loaded"][OWN]["resident"] > facts["loaded"][OWN]["active"] > 0
    assert facts["loaded"]["PyTorch reference"]["resident"] > facts["loaded"][OWN]["resident"]
    assert [row["status"] for row in facts["loaded"].values() if row["status"] != "measured"] == [
        "not installed: no_such_module"
    ] * len(absent)
    assert set(facts["growth"]) == {"resident", "active"}
    assert "growth" in table
    refused = run_here("bench", "memory", "--shapes", "12", "--warm-up", "12", code=1)
    assert "leave nothing after a warm-up of 12" in refused.stderr


def test_roofline(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # This machine's rates, which take seconds to measure, are the same in both runs.
    monkeypatch.setattr(roofline, "measure_rates", functools.cache(roofline.measure_rates))
    out = tmp_path / "out.json"
    few = ["--model", str(tiny), "--candidates", "4", "--rounds", "1", "--output", str(out)]
    assert "PREDICTION" not in run_here("bench", "roofline", *few).stdout
    table = run_here("bench", "roofline", *few, "--tflops", "10", "--bandwidth", "100").stdout
    facts = json.loads(out.read_text())
    assert "PREDICTION, not measured: the most that 10 TFLOP/s and 100 GB/s allow" in table
    full, less = facts["bounds"].values()
    assert full["flops"] > less["flops"] > 0
    assert facts["prediction"]["bounds"]["all of every layer"]["least_seconds"] < full["least_seconds"]
    assert "both above 0" in run_here("bench", "roofline", "--tflops", "10", code=1).stderr


def test_padding_of_several_sets(tiny: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    words = ["--model", str(tiny), "--candidates", "10", "--queries", "2", "--output", str(out)]
    table = run_here("bench", "padding", str(data), str(data), *words).stdout
    rows = json.loads(out.read_text())["rows"]
    assert [row["pairs"] for row in rows] == [20, 20]
    assert table.count(data.name) == 2


@pytest.mark.parametrize("name", ["speed", "memory", "roofline", "serving"])
def test_each_measurement_is_a_command(name: str) -> None:
    command = [sys.executable, "-m", "mlx_rerank", "bench", name, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert f"bench {name} [OPTIONS]" in done.stdout


def test_the_command_line_imports_no_benchmark() -> None:
    code = "import sys, mlx_rerank.cli; print([m for m in sys.modules if m.startswith(('mlx_rerank.bench', 'psutil'))])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("logits", [[1.0, float("nan")], [1.0]])
def test_nobody_is_fast_and_wrong(tiny: Path, monkeypatch: pytest.MonkeyPatch, logits: list[float]) -> None:
    with Worker(Contender(OWN, "mlx_rerank", str(tiny), 64), 1) as worker:
        monkeypatch.setattr(worker, "_answer", lambda: asdict(Answer(1.0, logits, None, 1)))
        with pytest.raises(WorkerError, match="has no finite logit for each of 2 pairs"):
            worker.score(PAIRS)
