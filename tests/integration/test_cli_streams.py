"""The command line's ends: closed streams, readers that leave, interrupts, and completion in a shell."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import COMMAND, run_here

SELF = " ".join(COMMAND)
SHORT = ("info", "info --json", "--version", "--help", "rank --help", "audit")
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # as people have it


def shell(command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=BUFFERED,
    )


@pytest.mark.parametrize("arguments", ["rank q - <&-", "score - <&-", "explain q - <&-", "verify --pairs - <&-"])
def test_closed_input(arguments: str) -> None:
    done = shell(f"{SELF} {arguments}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "mlx-rerank: standard input is closed: name a file, or pipe the text in\n"


@pytest.mark.parametrize("arguments", ["info", "rank q", "bench padding", "--help"])
def test_closed_output(arguments: str, tmp_path: Path) -> None:
    done = shell(f"cd {tmp_path} && {SELF} {arguments} >&-", "text\n")
    assert done.returncode == 1
    assert done.stderr == "mlx-rerank: standard output is closed: send it somewhere, such as > /dev/null\n"


def test_closed_error() -> None:
    assert json.loads(shell(f"{SELF} rank tea -v 2>&-", "tea\n").stdout)["text"] == "tea"
    assert shell(f"{SELF} rank tea <&- >&- 2>&-").returncode == 1


@pytest.mark.parametrize("arguments", SHORT)
def test_readers_that_leave(arguments: str) -> None:
    for reader in ("true", "head -n 1 > /dev/null"):
        done = shell(f"{SELF} {arguments} | {reader}")
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", ["rank q --json", "score -"])
def test_readers_that_leave_large_outputs(arguments: str, tiny: Path) -> None:
    many = "".join(f"query\tdocument {i} {'and more ' * 40}\n" for i in range(300))
    done = shell(f"{SELF} {arguments} --model {tiny} | head -n 1", many)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)
    assert shell(f"{SELF} {arguments} --model {tiny} | true", many).returncode == 0


def test_results_are_kept_if_nobody_reads_what_is_said_beside_them(tiny: Path, tmp_path: Path) -> None:
    for arguments in ("rank q", "score -"):
        done = shell(f"{SELF} {arguments} -v --model {tiny} 2>&1 > {tmp_path / 'out'} | true", "tea\ta document\n")
        assert done.returncode == 0
        assert len((tmp_path / "out").read_text().splitlines()) == 1


SLOW = (  # pairs that take so long that a run is hit between its parts
    "import sys, time\n"
    "from mlx_rerank.scoring.reranker import Reranker\n"
    "logits = Reranker.logits\n"
    "Reranker.logits = lambda *given, **options: time.sleep(0.5) or logits(*given, **options)\n"
    "from mlx_rerank.cli import main\n"
    "main(sys.argv[1:])"
)


def test_an_interrupted_score_keeps_what_was_scored(tiny: Path, tmp_path: Path) -> None:
    pairs, cache = tmp_path / "pairs.tsv", tmp_path / "scores.db"
    pairs.write_text("".join(f"the panda {i}\t{'the bear ' * 6000}\n" for i in range(40)))
    options = [str(pairs), "--model", str(tiny), "--score-cache", str(cache)]
    command = [sys.executable, "-c", SLOW, "score", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=BUFFERED)
    assert process.stdout
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    lines = [first, *rest.splitlines()]
    assert process.returncode == 130
    assert 1 <= len(lines) < 40
    assert json.loads(first)["truncated_tokens"] > 0
    assert cache.stat().st_size > 0


def test_scores_in_parts_are_those_of_one(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pairs.tsv").write_text("".join(f"the panda\tthe bear {'is what ' * i}\n" for i in range(9)))
    options = ["score", str(tmp_path / "pairs.tsv"), "--model", str(tiny), "--deterministic"]
    whole = run_here(*options).stdout
    for pairs, characters in ((2, 10**6), (1024, 60), (1024, 0)):
        monkeypatch.setattr("mlx_rerank.cli.scoring._PART_PAIRS", pairs)
        monkeypatch.setattr("mlx_rerank.cli.scoring._PART_CHARACTERS", characters)
        assert run_here(*options).stdout == whole
    assert len(whole.splitlines()) == 9


def test_a_deadline_counts_what_was_printed(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pairs.tsv").write_text("panda\tbear\nthe\tbear\n")
    monkeypatch.setattr("mlx_rerank.cli.scoring._PART_PAIRS", 1)
    clock = iter((0.0, 100.0))
    own = SimpleNamespace(monotonic=lambda: next(clock), perf_counter=time.perf_counter)
    monkeypatch.setattr("mlx_rerank.cli.scoring.time", own)
    done = run_here("score", str(tmp_path / "pairs.tsv"), "--model", str(tiny), "--timeout", "50", code=1)
    assert len(done.stdout.splitlines()) == 1
    assert "1 of 2 pairs are printed; of those after them 0 of 1 pairs were scored" in done.stderr


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion(name: str, tmp_path: Path) -> None:
    words = {"COMP_WORDS": "mlx-rerank ra", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "mlx-rerank ra",
             "_TYPER_COMPLETE_FISH_ACTION": "get-args", "_MLX_RERANK_COMPLETE": f"complete_{name}"}  # fmt: skip
    done = subprocess.run(COMMAND, env=os.environ | words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "rank" in done.stdout
    home = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    for option in ("--show-completion", "--install-completion"):
        command = [*COMMAND, option, name]
        done = subprocess.run(command, env=os.environ | home, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert ("mlx-rerank" in done.stdout) or option == "--install-completion"
    assert [path for path in tmp_path.rglob("*") if path.is_file()]


def test_help_names_every_exit_code() -> None:
    assert "0 done, 1 error, 2 wrong usage, 130 interrupted, 143 terminated" in run_here("--help").stdout


def test_the_command_starts_without_the_model() -> None:
    heavy = "{'mlx', 'numpy', 'torch', 'transformers', 'rich'}"
    code = f"import sys, mlx_rerank.cli; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
