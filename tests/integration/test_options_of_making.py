"""Every option of train, convert and upload."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from asking import parameters
from checkpoints import TINY, random_tensors, write_checkpoint
from commands import run_here
from fake_hub import TOKEN, FakeHub
from training_data import make_examples

from mlx_rerank.cli import converting, training
from mlx_rerank.convert import convert
from mlx_rerank.train import learner
from mlx_rerank.train.progress import Progress

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # what the hub's library does
Case = tuple[list[str], str | None]  # what is added or, from the command's name on, given; what the error says, if any
TRAINING: dict[str, Case] = {
    "data": (["train", "other.jsonl", "-o", "out", "-m", "tiny", "--batch-size", "2"], None),
    "output": (["-o", "elsewhere"], None),
    "model": (["--model", "other"], None),
    "dev": (["--dev", "other.jsonl"], None),
    "epochs": (["--epochs", "2"], None),
    "batch_size": (["--batch-size", "1"], None),
    "group_size": (["--group-size", "2"], None),
    "learning_rate": (["--learning-rate", "0.02"], None),
    "lora_rank": (["--lora-rank", "2"], None),
    "lora_alpha": (["--lora-alpha", "3"], "give a lora_rank too"),
    "loss": (["--loss", "binary"], None),
    "negatives": (["--negatives", "bm25"], None),
    "corpus": (["--corpus", "corpus.txt"], "add --negatives bm25 or model"),
    "train_embeddings": (["--train-embeddings"], None),
    "max_length": (["--max-length", "10"], None),
    "token_budget": (["--token-budget", "20"], None),
    "checkpoint_layers": (["--checkpoint-layers"], None),
    "compute_dtype": (["--compute-dtype", "bfloat16"], None),
    "dtype": (["--dtype", "float32"], None),
    "seed": (["--seed", "1"], None),
    "evaluate_every": (["--evaluate-every", "1"], None),
    "save_every": (["--save-every", "1"], None),
    "device": (["--device", "tpu"], "device 'tpu' is not"),
    "revision": (["--revision", "v1"], "revision 'v1' is for models of the hub"),
}
CONVERTING: dict[str, Case] = {
    "hf_path": (["convert", "--hf-path", "other", "--mlx-path", "out"], None),
    "mlx_path": (["--mlx-path", "elsewhere"], None),
    "dtype": (["--dtype", "float32"], None),
    "revision": (["--revision", "v1"], "revision 'v1' is for models of the hub"),
    "quantize": (["--quantize"], None),
    "q_bits": (["--q-bits", "8"], "only along with --quantize"),
    "q_group_size": (["--q-group-size", "64"], "only along with --quantize"),
    "q_mode": (["--q-mode", "affine"], "only along with --quantize"),
    "q_embedding_bits": (["--q-embedding-bits", "8"], "only along with --quantize"),
    "q_embedding_group_size": (["--q-embedding-group-size", "64"], "only along with --quantize"),
    "q_embedding_mode": (["--q-embedding-mode", "affine"], "only along with --quantize"),
    "q_recipe": (["--q-recipe", "uniform"], "only along with --quantize"),
    "q_target_bits": (["--q-target-bits", "5.5"], "only along with --quantize"),
    "trim_vocab": (["--trim-vocab", "corpus.txt"], None),
    "template": (["--template", "other"], "template 'other' is not one of"),
    "verify": (["--verify"], "needs torch"),
    "upload_repo": (["--upload-repo", "user/tiny"], None),
    "private": (["--private"], "say where to with --upload-repo"),
    "dry_run": (["--dry-run"], "say where to with --upload-repo"),
}
PACKED: list[list[str]] = [
    ["--q-bits", "4"],
    ["--q-group-size", "32"],
    ["--q-mode", "mxfp8"],
    ["--q-embedding-bits", "4"],
    ["--q-embedding-group-size", "32"],
    ["--q-embedding-mode", "none"],
    ["--q-recipe", "auto"],
    ["--q-recipe", "auto", "--q-target-bits", "8"],
]
UPLOADING: dict[str, Case] = {
    "directory": (["upload", "tiny", "user/tiny"], "give a directory that convert has written"),
    "repo": (["upload", "converted", "user/other"], None),
    "private": (["--private"], None),
    "dry_run": (["--dry-run"], None),
}
COMMANDS: dict[str, tuple[Callable[..., None], list[str], dict[str, Case]]] = {
    "train": (training.train, ["train", "data.jsonl", "-o", "out", "-m", "tiny", "--batch-size", "2"], TRAINING),
    "convert": (converting.convert, ["convert", "--hf-path", "tiny", "--mlx-path", "out"], CONVERTING),
    "upload": (converting.upload, ["upload", "converted", "user/tiny"], UPLOADING),
}


@pytest.fixture
def told(hub: FakeHub, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command in a directory with models and texts, and return all that came of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setitem(sys.modules, "torch", None)  # takes seconds
    (tmp_path / "tiny").symlink_to(tiny)
    write_checkpoint(tmp_path / "other", tensors=random_tensors(TINY, seed=1))
    for name, seed in (("data", 0), ("other", 5)):
        rows = [asdict(example) for example in make_examples(4, seed=seed)]
        rows = [{"query": row["query"], "pos": row["documents"][:1], "neg": row["documents"][1:]} for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "corpus.txt").write_text("the panda eats\na river of cold tea\nthe bear is a panda\n")
    convert("tiny", "converted")
    work = Mock(wraps=Progress.save), Mock(wraps=learner.checkpoint_layers)
    monkeypatch.setattr(Progress, "save", lambda *given: work[0](*given))
    monkeypatch.setattr(learner, "checkpoint_layers", work[1])

    def run(arguments: list[str], code: int = 0) -> Any:
        for mock in work:
            mock.reset_mock()
        hub.repositories.clear()
        done = run_here(*arguments, code=code)
        written = {}
        for path in (path for name in ("out", "elsewhere") for path in Path(name).glob("*")):
            written[str(path)] = path.read_bytes()
        for name in ("out", "elsewhere"):
            shutil.rmtree(name, ignore_errors=True)
        if "train" in arguments:  # whose options are in these, whether they have an effect or not
            written = {path: data for path, data in written.items() if path.endswith(".safetensors")}
        published = {name: (each.private, each.files) for name, each in hub.repositories.items()}
        said = [line for line in done.stderr.splitlines() if "%|" not in line]  # a bar has a speed
        return done.stdout, "\n".join(said), written, published, [mock.call_count for mock in work]

    return run


def test_no_option_is_forgotten() -> None:
    for command, _, cases in COMMANDS.values():
        assert set(cases) == parameters(command)


@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command in COMMANDS for name in COMMANDS[command][2]]
)
def test_options(told: Callable[..., Any], command: str, name: str) -> None:
    _, usual, cases = COMMANDS[command]
    given, refused = cases[name]
    whole = given if given[0] == command else [*usual, *given]
    if refused is not None:
        assert refused in told(whole, code=1)[1]
    else:
        assert told(whole) != told(usual)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_comes_to_the_same_again(told: Callable[..., Any], command: str) -> None:
    assert told(COMMANDS[command][1]) == told(COMMANDS[command][1])


@pytest.mark.parametrize("given", PACKED, ids=" ".join)
def test_packing(told: Callable[..., Any], given: list[str]) -> None:
    usual = [*COMMANDS["convert"][1], "--quantize", *(given[:2] if len(given) > 2 else [])]
    assert told([*COMMANDS["convert"][1], "--quantize", *given]) != told(usual)


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (
            ["train", "data.jsonl", "-o", "out", "--loss", "binary", "--loss", "binary=0.5"],
            "binary has a weight already",
        ),
        (["convert", "--hf-path", "tiny", "-q", "--q-recipe", "auto", "--q-mode", "affine"], "chooses bits, groups"),
    ],
)
def test_what_is_asked_for_twice(told: Callable[..., Any], options: list[str], refused: str) -> None:
    assert refused in told(options, code=1)[1]


@pytest.mark.parametrize(
    ("usual", "given"),
    [
        (["--lora-rank", "2"], ["--lora-alpha", "3"]),
        (["--negatives", "bm25"], ["--corpus", "corpus.txt"]),
        (["--dev", "other.jsonl"], ["--evaluate-every", "1"]),
    ],
)
def test_options_of_others(told: Callable[..., Any], usual: list[str], given: list[str]) -> None:
    usual = [*COMMANDS["train"][1], *usual]
    assert told([*usual, *given]) != told(usual)
