"""A run that was interrupted ends as it would have: the same bytes, whatever the moment."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from training_data import make_examples

from mlx_rerank.errors import DeviceError, InputError, OutputError
from mlx_rerank.train import TrainingOptions, train, trainer
from mlx_rerank.train.learner import Learner
from mlx_rerank.train.progress import Progress

EXAMPLES, DEV = make_examples(6), make_examples(2, seed=9)
WAYS: dict[str, dict[str, Any]] = {
    "full": {"token_budget": 60},  # several parts a step
    "lora": {"lora_rank": 2, "learning_rate": 0.01},
    "float16": {"dtype": "float16", "evaluate_every": 3},
}
COMMON: dict[str, Any] = {"epochs": 2, "batch_size": 2, "group_size": 3, "learning_rate": 1e-3}
STEPS = 6
SMALLEST = TINY | {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint smaller than the tiny one: these tests make some 200 steps, and look at no gradient."""
    return write_checkpoint(tmp_path_factory.mktemp("source") / "smallest", SMALLEST)


def run(directory: Path, output: Path, way: str = "full", report: Any = None, **other: Any) -> Path:
    options = TrainingOptions(**(COMMON | WAYS[way] | other))
    return train(EXAMPLES, output, model=directory, dev=DEV, options=options, report=report, show_progress=False)


def written(output: Path) -> tuple[bytes, Any]:
    """Return the weights' bytes, and the record of the run."""
    config = json.loads((output / "config.json").read_text())
    return (output / "model.safetensors").read_bytes(), config["mlx_rerank"]["training"]


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, Any]]:
    """What uninterrupted runs write."""
    found = {}
    for way in WAYS:
        output = tmp_path_factory.mktemp("whole") / "out"
        found[way] = written(run(source, output, way, save_every=1))
        assert [path.name for path in output.parent.iterdir()] == ["out"]
    return found


@pytest.fixture
def interrupting(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the learner be interrupted at the start of some steps, once each."""
    left: set[int] = set()
    learn = Learner.learn

    def interrupted(self: Learner, *arguments: Any) -> Any:
        if self.steps in left:
            left.remove(self.steps)
            raise KeyboardInterrupt
        return learn(self, *arguments)

    monkeypatch.setattr(Learner, "learn", interrupted)
    return left.update


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("save_every", [1, 100])
def test_interrupted_at_every_step(
    source: Path, tmp_path: Path, whole: Any, interrupting: Any, way: str, save_every: int
) -> None:
    interrupting(range(STEPS))
    output = tmp_path / "out"
    for _ in range(STEPS):
        with pytest.raises(KeyboardInterrupt):
            run(source, output, way, save_every=save_every)
        assert [path.name for path in tmp_path.iterdir()] == ["out.training"]
    run(source, output, way, save_every=save_every)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    weights, record = written(output)
    record["options"]["save_every"] = 1
    assert (weights, record) == whole[way]


@pytest.mark.parametrize("at", [0, 3, 6])
def test_interrupted_in_a_report(source: Path, tmp_path: Path, whole: Any, at: int) -> None:
    def report(record: dict[str, Any]) -> None:
        if record["step"] == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", report=report, save_every=1)
    seen: list[int] = []
    run(source, tmp_path / "out", report=lambda record: seen.append(record["step"]), save_every=1)
    assert seen == [step for step in (0, 3, 6) if step > at]
    assert written(tmp_path / "out") == whole["full"]


def test_interrupted_while_the_dev_set_is_looked_at(
    source: Path, tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def interrupted(*arguments: Any) -> float:
        calls.append(1)
        if len(calls) in (1, 3, 5):
            raise KeyboardInterrupt
        return mean_ndcg(*arguments)

    mean_ndcg = trainer.mean_ndcg
    monkeypatch.setattr(trainer, "mean_ndcg", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "out", save_every=1)
    run(source, tmp_path / "out", save_every=1)
    assert written(tmp_path / "out") == whole["full"]


def test_interrupted_within_an_update(
    source: Path, tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore = monkeypatch.context()
    with restore as patched:
        evaluate, calls = mx.eval, []

        def interrupted(*arrays: Any) -> None:
            evaluate(*arrays)
            if len(arrays) == 2 and isinstance(arrays[1], dict) and "step" in arrays[1]:
                calls.append(1)
                if len(calls) == 4:
                    raise KeyboardInterrupt  # after the weights were replaced, before the step was counted

        patched.setattr(mx, "eval", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "out", save_every=2)
        assert len(calls) == 4
    steps: list[int] = []
    learn = Learner.learn
    monkeypatch.setattr(Learner, "learn", lambda self, *rest: steps.append(self.steps) or learn(self, *rest))
    run(source, tmp_path / "out", save_every=2)
    assert steps == [2, 3, 4, 5]  # from the last save
    assert written(tmp_path / "out")[0] == whole["full"][0]


@pytest.mark.parametrize("at", range(0, 18, 2))
def test_a_device_that_fails(
    source: Path, tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    evaluate, calls = mx.eval, []

    def failing(*arrays: Any) -> None:
        calls.append(1)
        if len(calls) == at + 1:
            raise RuntimeError("[METAL] Command buffer execution failed")
        evaluate(*arrays)

    with monkeypatch.context() as patched:
        patched.setattr(mx, "eval", failing)
        with pytest.raises(DeviceError, match=r"Command buffer execution failed.*token_budget"):
            run(source, tmp_path / "out", save_every=1)
    assert not (tmp_path / "out").exists()
    run(source, tmp_path / "out", save_every=1)
    assert written(tmp_path / "out") == whole["full"]


def test_a_run_whose_directory_could_not_be_written(
    source: Path, tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("mlx_rerank.checkpoints.weights.save", full_disk)
        with pytest.raises(OutputError, match="disk full"):
            run(source, tmp_path / "out", save_every=100)
    assert [path.name for path in tmp_path.iterdir()] == ["out.training"]  # no half directory
    monkeypatch.setattr(Learner, "learn", None)  # all steps are done
    run(source, tmp_path / "out", save_every=100)
    assert written(tmp_path / "out")[0] == whole["full"][0]


def test_a_state_that_cannot_be_written(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(path: str, *_: Any, **__: Any) -> None:
        Path(path).write_bytes(b"half a file")
        raise RuntimeError("[write] Unable to write")

    monkeypatch.setattr(mx, "save_safetensors", half)
    with pytest.raises(OutputError, match=r"state of the training run cannot be written to .*out\.training: \[write\]"):
        run(source, tmp_path / "out", save_every=1)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def interrupted_run(source: Path, tmp_path: Path, interrupting: Any) -> Path:
    interrupting([2])
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out")
    return tmp_path / "out"


def test_a_state_of_another_run(source: Path, interrupted_run: Path, tmp_path: Path) -> None:
    state = interrupted_run.with_name("out.training")
    before = state.read_bytes()
    others: dict[str, Any] = {"epochs": 3, "seed": 1, "losses": {"binary": 1.0}}
    for name, value in others.items():
        with pytest.raises(InputError, match=rf"out\.training holds .* run with another {name} \(.* delete"):
            run(source, interrupted_run, **{name: value})
    options = TrainingOptions(**COMMON, **WAYS["full"])
    for name, data, dev in (("data", EXAMPLES[1:], DEV), ("dev", EXAMPLES, None), ("dev", EXAMPLES, DEV[1:])):
        with pytest.raises(InputError, match=f"another {name} "):
            train(data, interrupted_run, model=source, dev=dev, options=options, show_progress=False)
    other = write_checkpoint(tmp_path / "other", SMALLEST, random_tensors(SMALLEST, seed=1))
    with pytest.raises(InputError, match="another model "):
        train(EXAMPLES, interrupted_run, model=other, dev=DEV, options=options, show_progress=False)
    assert state.read_bytes() == before


@pytest.mark.parametrize("content", ["cut", "other"])
def test_a_file_that_is_no_state(source: Path, interrupted_run: Path, content: str) -> None:
    state = interrupted_run.with_name("out.training")
    if content == "cut":
        state.write_bytes(state.read_bytes()[:100])
    else:
        state.write_bytes((source / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"out\.training is not the state of a training run .*: delete it"):
        run(source, interrupted_run)


def test_a_part_that_a_killed_process_left(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", epochs=1)
    part = Progress(tmp_path / "next", {})._part
    part.write_bytes(b"half a file")
    run(source, tmp_path / "next", epochs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["next", "out"]
