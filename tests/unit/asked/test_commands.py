"""Every option of rank, score, explain and serve."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from asking import Asked, parameters, seen
from checkpoints import TINY, random_tensors, write_checkpoint
from commands import run_here

from mlx_rerank.cli import explaining, launching, scoring, serving

DOCUMENTS = [{"id": i, "text": text} for i, text in enumerate(["the bear", "a bear " * 40, "what", "panda is"] * 6)]
ON_A_TERMINAL = {"as_json"}  # alone it changes something
Case = tuple[list[str], str | None]
LOADING: dict[str, Case] = {  # options, what comes of them: an error that says so, or another result
    "model": (["--model", "other"], None),
    "dtype": (["--dtype", ""], "dtype '' is not one of"),
    "device": (["--device", "tpu"], "device 'tpu' is not"),
    "max_length": (["--max-length", "20"], None),
    "long_documents": (["--long-documents", "windows"], None),
    "revision": (["--revision", "v1"], "revision 'v1' is for models of the hub"),
    "cpu_threads": (["--cpu-threads", "0"], "cpu_threads must be a whole number of at least 1, not 0"),
    "template": (["--template", "other"], "template 'other' is not one of"),
    "instruction": (["--instruction", "find"], "reads no instruction"),
    "embeddings": (["--embeddings", "mapped", "--model", "damaged"], "cannot be mapped"),
    "timeout": (["--timeout", "1e-9"], "pairs were scored in 1e-09 s|passes of an explanation were done in 1e-09 s"),
}
SCORING: dict[str, Case] = LOADING | {
    "deterministic": (["--deterministic", "--reference"], "--deterministic is about MLX"),
    "score_cache": (["--score-cache", "scores.db"], None),
    "raw": (["--raw"], None),
    "reference": (["--reference", "--timeout", "1"], "--timeout is about MLX"),
    "verbose": (["--verbose"], None),
}
COMMANDS: dict[str, tuple[Callable[..., None], list[str], dict[str, Case]]] = {
    "rank": (
        scoring.rank,
        ["rank", "panda", "documents.jsonl"],
        SCORING
        | {
            "query": (["rank", "what", "documents.jsonl"], None),
            "files": (["rank", "panda", "few.jsonl"], None),
            "top_n": (["--top-n", "2"], None),
            "threshold": (["--threshold", "0.5"], None),
            "form": (["--format", "lines"], None),
            "column": (["--column", "id"], "has no text under 'id'"),
            "first_stage": (["--first-stage", "other"], None),
            "keep": (["--keep", "2"], "keep=2 needs a first stage"),
        },
    ),
    "score": (
        scoring.score,
        ["score", "pairs.tsv"],
        SCORING
        | {
            "file": (["score", "more.tsv"], None),
            "form": (["--format", "jsonl"], "pairs.tsv:1 is not JSON"),
            "column": (["--column", "2", "--column", "1"], None),
        },
    ),
    "explain": (
        explaining.explain,
        ["explain", "panda", "document.txt"],
        LOADING
        | {
            "query": (["explain", "what", "document.txt"], None),
            "file": (["explain", "panda", "other.txt"], None),
            "form": (["explain", "panda", "few.jsonl", "--format", "files"], None),
            "max_passes": (["--max-passes", "2"], None),
            "as_html": (["--html"], None),
            "as_json": (["--html", "--json"], "--html and --json are two forms"),
        },
    ),
}
SERVING = {
    "model": Asked({"model": ["other"]}),
    "host": Asked({"host": "localhost"}),
    "port": Asked({"port": 9}),
    "unix_socket": Asked({"unix_socket": Path("socket")}),
    "api_key_file": Asked({"api_key_file": Path("pairs.tsv")}),
    "allow_host": Asked({"allow_host": ["name"]}),
    "allow_origin": Asked({"allow_origin": ["https://chat.example"]}),
    "dtype": Asked({"dtype": "float16"}),
    "device": Asked({"device": "cpu"}),
    "max_length": Asked({"max_length": 20}),
    "long_documents": Asked({"long_documents": "windows"}),
    "token_budget": Asked({"token_budget": 70}),
    "revision": Asked({"revision": "v1"}),  # which the model refuses when it is loaded
    "deterministic": Asked({"deterministic": True}),
    "embeddings": Asked({"embeddings": "mapped"}),
    "cpu_threads": Asked({"cpu_threads": 1}),
    "template": Asked({"template": "qwen3-reranker"}),
    "instruction": Asked({"instruction": "find"}),
    "keep_alive": Asked({"keep_alive": 0}),
    "memory_limit": Asked({"memory_limit": "1G"}),
    "unknown_model": Asked({"unknown_model": "404"}),
    "warmup": Asked({"warmup": True}),
    "max_documents": Asked({"max_documents": 2}),
    "max_characters": Asked({"max_characters": 2}),
    "max_body": Asked({"max_body": "1M"}),
    "max_queue": Asked({"max_queue": 2}),
    "timeout": Asked({"timeout": 2.0}),
    "body_timeout": Asked({"body_timeout": 2.0}),
    "log_format": Asked({"log_format": "json"}),
    "log_level": Asked({"log_level": "debug"}),
    "install_service": Asked({"install_service": True}),
    "uninstall_service": Asked({"uninstall_service": True}, refused="give one", beside={"install_service": True}),
    "service_status": Asked({"service_status": True}, refused="give one", beside={"install_service": True}),
}


@pytest.fixture(autouse=True)
def _place(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with models and texts in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").symlink_to(tiny)
    write_checkpoint(tmp_path / "other", tensors=random_tensors(TINY, seed=1))
    write_checkpoint(tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").rename(tmp_path / "damaged" / "pytorch_model.bin")
    lines = [json.dumps(document) + "\n" for document in DOCUMENTS]
    for name, text in {
        "documents.jsonl": "".join(lines),
        "few.jsonl": "".join(lines[:2]),
        "document.txt": "the bear is what. " * 30,
        "other.txt": "the panda",
        "pairs.tsv": f"panda\tthe bear\nwhat\t{'a bear ' * 40}\n",
        "more.tsv": "panda\tthe bear\nwhat\tpanda\nthe\tbear\n",
    }.items():
        (tmp_path / name).write_text(text)


def test_no_option_is_forgotten() -> None:
    for name, (command, _, cases) in COMMANDS.items():
        assert set(cases) == parameters(command) - (ON_A_TERMINAL if name == "rank" else set()), name
    assert set(SERVING) == parameters(serving.serve)


@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command in COMMANDS for name in COMMANDS[command][2]]
)
def test_commands(command: str, name: str) -> None:
    def run(arguments: list[str], code: int = 0) -> Any:
        model = [] if "--model" in arguments else ["--model", "tiny"]
        done = run_here(*arguments, *model, code=code)
        told = [part.partition(" ")[2] for part in done.stderr.split(",")]  # without figures of time
        return done.stdout, len(told) if code == 0 else done.stderr, sorted(map(str, Path().iterdir()))

    _, usual, cases = COMMANDS[command]
    given, refused = cases[name]
    whole = given if given[0] == command else [*usual, *given]
    if refused is not None:
        assert any(part in run(whole, code=1)[1] for part in refused.split("|"))
        return
    before = run(usual)
    assert run(usual) == before
    assert run(whole) != before


def test_json_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Mock()
    monkeypatch.setattr("mlx_rerank.cli.printing.print_ranking", shown)
    for options in ([], ["--json"]):
        run_here("rank", "panda", "documents.jsonl", "--model", "tiny", *options)
        assert shown.call_args.kwargs["as_json"] == bool(options)


@pytest.mark.parametrize("name", SERVING)
def test_serving(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {part: Mock() for part in ("run.run", "run.open_socket", "logs.set_up", "pool.Pool")}
    for path, part in parts.items():
        monkeypatch.setattr(f"mlx_rerank.server.{path}", part)
    monkeypatch.setattr(launching, "install", lambda: None)

    def serve(**options: Any) -> Any:
        for part in parts.values():
            part.reset_mock()
        serving.serve(**options)
        pool, running = parts["pool.Pool"].call_args, parts["run.run"].call_args
        rest = [parts[path].call_args for path in ("run.open_socket", "logs.set_up")]
        return str(pool), str(running and SimpleNamespace(bounds=running.args[1], settings=running.args[2])), str(rest)

    SERVING[name].check(serve)
    assert seen(serve()) == seen(serve())
