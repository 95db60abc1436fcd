"""Every option of info, audit, verify and the benchmarks."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
from asking import parameters, seen
from checkpoints import TINY, write_checkpoint
from commands import run_here

from mlx_rerank.bench import memory, padding, roofline, serving, speed
from mlx_rerank.bench.texts import Counter, Texts
from mlx_rerank.cli import benching, models
from mlx_rerank.errors import InputError

Case = tuple[list[str], str | None]  # what is added or, from the command's name on, given; what the error says, if any
REVISION: Case = (["--revision", "v1"], "revision 'v1' is for models of the hub")
ABOUT: dict[str, tuple[Callable[..., None], dict[str, Case]]] = {
    "info": (
        models.info,
        {
            "model": (["info", "other"], None),
            "revision": REVISION,
            "measured": (["--measure"], None),
            "as_json": (["--json"], None),
        },
    ),
    "audit": (
        models.audit,
        {
            "model": (["audit", "other"], None),
            "dtype": (["--dtype", "float32"], None),
            "revision": REVISION,
        },
    ),
}
VERIFYING = {
    "model": ["verify", "other"],
    "against": ["--against", "other"],
    "against_revision": ["--against-revision", "v1"],
    "pairs": ["--pairs", "pairs.tsv"],
    "dtype": ["--dtype", "float16"],
    "device": ["--device", "cpu"],
    "max_length": ["--max-length", "20"],
    "tolerance": ["--tolerance", "0.5"],
    "revision": ["--revision", "v1"],
    "as_json": ["--json"],
}
SHARED = {
    "model": ["--model", "other"],
    "data": ["--data", "."],
    "seed": ["--seed", "1"],
    "output": ["--output", "here.json"],
    "device": ["--device", "cpu"],
    "threads": ["--threads", "7"],
}
COMPARED = SHARED | {"rounds": ["--rounds", "9"]}
MEASURED = {"shape": ["--shape", "base"], "max_length": ["--max-length", "20"]}
BENCHES: dict[str, tuple[ModuleType, dict[str, list[str]]]] = {
    "speed": (
        speed,
        COMPARED
        | MEASURED
        | {
            "candidates": ["--candidates", "4"],
            "lengths": ["--lengths", "16"],
            "tokens": ["--tokens", "64"],
            "scaling": ["--scaling", "8"],
            "contender": ["--contender", "mlx-rerank"],
            "as_json": ["--json"],
        },
    ),
    "padding": (
        padding,
        {name: SHARED[name] for name in ("model", "seed", "output")}
        | {
            "data": ["bench", "padding", "."],
            "candidates": ["--candidates", "4"],
            "queries": ["--queries", "2"],
            "max_length": ["--max-length", "20"],
        },
    ),
    "memory": (
        memory,
        SHARED | {"shapes": ["--shapes", "500"], "warm_up": ["--warm-up", "9"], "tokens": ["--tokens", "64"]},
    ),
    "roofline": (
        roofline,
        {name: option for name, option in COMPARED.items() if name != "threads"}
        | MEASURED
        | {
            "candidates": ["--candidates", "4"],
            "dtype": ["--dtype", "float16"],
            "tflops": ["--tflops", "2"],
            "bandwidth": ["--bandwidth", "2"],
        },
    ),
    "serving": (
        serving,
        COMPARED
        | {
            "length": ["--length", "16"],
            "requests": ["--requests", "2"],
            "clients": ["--clients", "2"],
            "seconds": ["--seconds", "2"],
        },
    ),
}


@pytest.fixture(autouse=True)
def _place(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with models and texts in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").symlink_to(tiny)
    write_checkpoint(tmp_path / "other", TINY | {"num_hidden_layers": 1})
    (tmp_path / "pairs.tsv").write_text("panda\tthe bear\n")


def test_no_option_is_forgotten() -> None:
    for name, (command, cases) in ABOUT.items():
        assert set(cases) == parameters(command) - ({"as_json"} if name == "audit" else set())  # on a terminal only
    assert set(VERIFYING) == parameters(models.verify)
    for name, (_, cases) in BENCHES.items():
        assert set(cases) == parameters(getattr(benching, name)), name


@pytest.mark.parametrize(("command", "name"), [(command, name) for command in ABOUT for name in ABOUT[command][1]])
def test_about_a_model(command: str, name: str) -> None:
    given, refused = ABOUT[command][1][name]
    whole = given if given[0] == command else [command, "tiny", *given]
    if refused is not None:
        assert refused in run_here(*whole, code=1).stderr
        return
    before = run_here(command, "tiny").stdout
    assert run_here(command, "tiny").stdout == before
    assert run_here(*whole).stdout != before


@pytest.mark.parametrize("name", VERIFYING)
def test_verifying(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verify, shown = Mock(), Mock()
    monkeypatch.setattr("mlx_rerank.proof.verify.verify", verify)  # tests/parity shows what it does with them
    monkeypatch.setattr("mlx_rerank.cli.printing.print_report", shown)

    def told(*arguments: str) -> Any:
        run_here(*arguments)
        return verify.call_args, shown.call_args.kwargs

    before = told("verify", "tiny")
    assert told("verify", "tiny") == before
    given = VERIFYING[name]
    assert told(*(given if given[0] == "verify" else ["verify", "tiny", *given])) != before


@pytest.mark.parametrize(("command", "name"), [(command, name) for command in BENCHES for name in BENCHES[command][1]])
def test_benchmarks_are_told(command: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, cases = BENCHES[command]
    run, write = Mock(return_value={"contenders": []}), Mock()
    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "print_tables", Mock())
    monkeypatch.setattr("mlx_rerank.bench.report.write", write)

    def told(*arguments: str) -> Any:
        write.reset_mock()
        run_here(*arguments)
        return seen(run.call_args.args), [call.args[0].name.partition("-2")[0] for call in write.mock_calls]  # no time

    before, given = told("bench", command), cases[name]
    assert told("bench", command) == before
    assert told(*(given if given[0] == "bench" else ["bench", command, *given])) != before


@pytest.mark.parametrize("module", [speed, memory, roofline, serving])
def test_benchmarks_read_all_that_they_are_told(module: Any) -> None:
    source = inspect.getsource(module)
    assert [field.name for field in fields(module.Options) if f"options.{field.name}" not in source] == []


def test_lengths_that_a_model_does_not_read(caplog: pytest.LogCaptureFixture) -> None:
    counter, texts = Counter(Path("tiny"), 20), Texts.read(None)
    assert len(speed.fixed_workloads(texts, counter, [16, 32], 64)) == 1
    assert caplog.messages == ["no workload of 32 tokens a pair: pairs are cut to 20"]
    with pytest.raises(InputError, match="--length 2000 is too large"):
        serving.run(serving.Options("tiny", length=2000))


def test_a_seed_below_zero() -> None:
    assert "--seed" in run_here("bench", "padding", "--seed", "-1", code=2).stderr
