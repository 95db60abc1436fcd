"""`mlx-rerank train`: from a file to a directory, through interruptions."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from training_data import make_examples

from mlx_rerank import Reranker, cli
from mlx_rerank.checkpoints.hub import EMBEDDED
from mlx_rerank.checkpoints.tensors import open_tensors
from mlx_rerank.train import TrainingOptions, train

COMMAND = [sys.executable, "-m", "mlx_rerank", "train"]
SLOW = (  # a run whose steps take long enough to be hit
    "import sys, time\n"
    "from mlx_rerank.train.learner import Learner\n"
    "learn = Learner.learn\n"
    "Learner.learn = lambda *arguments: time.sleep(0.3) or learn(*arguments)\n"
    "from mlx_rerank.cli import main\n"
    "main(['train', *sys.argv[1:]])"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    rows = [{"query": e.query, "pos": e.documents[:1], "neg": e.documents[1:]} for e in make_examples(24)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(capfd: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    """Run the command in this process; return what it says on stderr."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", *map(str, arguments)])
    out, err = capfd.readouterr()
    assert (exit_.value.code, out) == (code, ""), err
    return err


def test_a_run(tiny: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    err = run(
        capfd, data, "-o", output, "-m", tiny, "--dev", data, "--epochs", 2, "--lora-rank", 2, "--loss", "listwise",
        "--loss", "binary=0.25", "--learning-rate", 0.01, "--dtype", "float32",
    )  # fmt: skip
    lines = [line for line in err.splitlines() if line.startswith(("step", "wrote"))]
    assert lines[0].startswith("step 0: dev nDCG@10 0.")
    assert lines[1].startswith("step 3: loss ")
    assert lines[2].startswith("step 6: loss ")
    assert lines[3] == f"wrote {output}"
    record = json.loads((output / "config.json").read_text())["mlx_rerank"]["training"]
    assert record["options"]["losses"] == {"listwise": 1.0, "binary": 0.25}
    assert record["options"]["lora_rank"] == 2
    assert 0 < Reranker(output).score("panda", "the bear") < 1
    assert run(capfd, data, "-o", output, "-m", tiny, code=1).startswith(f"mlx-rerank: {output} exists: remove it")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loss", "pairwise"], "loss 'pairwise' is not one of listwise"),
        (["--loss", "binary=much"], "--loss binary=much: the weight after = must be a number"),
        (["--corpus", "texts.txt"], "--corpus is where hard negatives are taken from: add --negatives bm25 or model"),
        (["--negatives", "bm25", "--corpus", "/no/such/file"], "/no/such/file cannot be read"),
        (["--epochs", "0"], "epochs must be a whole number of at least 1, not 0"),
        (["--dtype", "int8"], "dtype 'int8'"),
        (["--loss", "distillation"], "distillation need a teacher's scores, which 24 of 24 queries lack"),
        (["--dev", "/no/such/file.jsonl"], "/no/such/file.jsonl cannot be read"),
        (["--device", "tpu"], "device 'tpu' is not 'gpu' or 'cpu'"),
        (["--lora-alpha", "3"], "lora_alpha is for low-rank updates"),
    ],
)
def test_refusals(
    tiny: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    err = run(capfd, data, "-o", tmp_path / "out", "-m", tiny, *arguments, code=1)
    assert err.startswith(f"mlx-rerank: {message}")
    assert list(tmp_path.iterdir()) == []


def test_hard_negatives_from_a_corpus(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, corpus = tmp_path / "pairs.csv", tmp_path / "corpus.txt"
    data.write_text("query,document,label\npanda,panda is a bear,1\ntea,tea is cold,1\n")
    corpus.write_text("the panda eats\na river of tea\n")
    run(capfd, data, "-o", tmp_path / "out", "-m", tiny, "--negatives", "bm25", "--corpus", corpus)
    assert (tmp_path / "out" / "model.safetensors").exists()


def start(arguments: list[str], state: Path) -> "subprocess.Popen[str]":
    """Start a slow run, and wait until it has saved its state twice."""
    process = subprocess.Popen([sys.executable, "-c", SLOW, *arguments], stderr=subprocess.PIPE, text=True)
    deadline, seen = time.monotonic() + 60, set()
    while len(seen) < 2 and time.monotonic() < deadline and process.poll() is None:
        if state.exists():
            seen.add(state.stat().st_mtime_ns)
        time.sleep(0.02)
    assert len(seen) == 2, process.communicate()
    return process


def test_killed_and_interrupted(tiny: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output, expected = tmp_path / "out", tmp_path / "expected"
    state = tmp_path / "out.training"
    options = [str(data), "-m", str(tiny), "--batch-size", "2", "--save-every", "2", "--learning-rate", "0.001"]
    subprocess.run([*COMMAND, *options, "-o", str(expected)], check=True, capture_output=True, timeout=60)

    process = start([*options, "-o", str(output)], state)
    process.kill()
    process.communicate(timeout=30)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "out.training"]

    process = start([*options, "-o", str(output)], state)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "mlx-rerank: interrupted; the same command goes on from the last complete step"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "out.training"]

    said = run(capfd, *options, "-o", output, "--seed", 1, code=1)
    assert f"{state} holds an interrupted run with another seed (0, not 1)" in said

    subprocess.run([*COMMAND, *options, "-o", str(output)], check=True, capture_output=True, timeout=60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "out"]
    assert (output / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()


def test_the_embedded_model(tmp_path: Path) -> None:
    options = TrainingOptions(learning_rate=2e-5, batch_size=3)
    target = train(make_examples(1), tmp_path / "out", options=options, dtype="float16", show_progress=False)
    before, after = open_tensors(EMBEDDED["mini"]), open_tensors(target)
    assert {name: (value.dtype, value.shape) for name, value in before.items()} == {
        name: (value.dtype, value.shape) for name, value in after.items()
    }
    assert all(
        mx.array_equal(before[name], after[name]) for name in before if name.startswith("embeddings.word_embeddings")
    )
    raw = [json.loads((path / "config.json").read_text()) for path in (EMBEDDED["mini"], target)]
    assert raw[0]["quantization"] == raw[1]["quantization"]
    found = Reranker(target, device="cpu").score([("what do pandas eat?", "bamboo"), ("q", "d")], raw_scores=True)
    assert np.isfinite(found).all()
