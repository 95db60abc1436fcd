"""Directories as training tools leave them: read, or refused with what they are and what to do."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from fake_hub import FakeHub
from safetensors.numpy import load_file, save_file
from texts import PAIRS

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.unread import _OTHERS
from mlx_rerank.convert import convert
from mlx_rerank.errors import CheckpointError, UnsupportedModelError, WeightsError

D = TINY["hidden_size"]


@pytest.fixture
def directory(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, which may be changed."""
    return shutil.copytree(tiny, tmp_path / "model")


@pytest.fixture(scope="module")
def expected(tiny: Path) -> np.ndarray:
    return Reranker(tiny).score(PAIRS)


def configure(directory: Path, **values: Any) -> None:
    """Change a directory's config.json; None takes an entry out."""
    path = directory / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def add(directory: Path, **shapes: tuple[int, ...]) -> None:
    """Add tensors to a directory's weights."""
    path = directory / "model.safetensors"
    more = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    save_file(load_file(path) | more, path, {"format": "pt"})


def test_heads_that_a_classifier_does_not_use(directory: Path, expected: np.ndarray, tmp_path: Path) -> None:
    pooler = {"roberta.pooler.dense.weight": (D, D), "roberta.pooler.dense.bias": (D,)}
    add(directory, **pooler, **{"lm_head.dense.weight": (D, D), "lm_head.bias": (120,)})
    np.testing.assert_array_equal(Reranker(directory).score(PAIRS), expected)
    np.testing.assert_array_equal(
        Reranker(convert(directory, tmp_path / "converted", dtype="float32")).score(PAIRS), expected
    )


@pytest.mark.parametrize("name", ["roberta.encoder.layer.2.output.dense.bias", "classifier.x.weight", "pooler.bias"])
def test_other_tensors_stay_unexpected(directory: Path, name: str) -> None:
    add(directory, **{name: (D,)})
    with pytest.raises(WeightsError, match=f"1 weights are unexpected: {re.escape(name)}$"):
        Reranker(directory)


@pytest.mark.parametrize("architectures", [None, []])
def test_a_config_that_names_no_architecture(directory: Path, expected: np.ndarray, architectures: list | None) -> None:
    configure(directory, architectures=architectures)
    np.testing.assert_array_equal(Reranker(directory).score(PAIRS), expected)
    path = directory / "model.safetensors"
    tensors = {name: value for name, value in load_file(path).items() if not name.startswith("classifier")}
    save_file(tensors, path, {"format": "pt"})  # an embedding model
    with pytest.raises(WeightsError, match=r"4 weights are missing: classifier\.dense"):
        Reranker(directory)


def test_an_architecture_that_is_another(directory: Path) -> None:
    configure(directory, architectures=["XLMRobertaModel"])
    with pytest.raises(UnsupportedModelError, match="found an embedding model"):
        Reranker(directory)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
def test_weights_that_were_saved_with_their_wrapper(tmp_path: Path, prefix: str) -> None:
    tensors = {prefix + name: value for name, value in random_tensors(TINY).items()}
    directory = write_checkpoint(tmp_path / "model", tensors=tensors)
    with pytest.raises(WeightsError, match=f"all names begin with '{prefix}', as a wrapper adds it: save the model"):
        Reranker(directory)


def shard(directory: Path, torch: Any, count: int = 3) -> list[Path]:
    """Put shards of torch's in the place of a directory's safetensors."""
    tensors = {name: torch.from_numpy(value) for name, value in load_file(directory / "model.safetensors").items()}
    (directory / "model.safetensors").unlink()
    names = [f"pytorch_model-{i + 1:05}-of-{count:05}.bin" for i in range(count)]
    where = {name: names[i % count] for i, name in enumerate(tensors)}
    for each in names:
        torch.save({name: tensors[name] for name in tensors if where[name] == each}, directory / each)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return [directory / name for name in names]


def test_shards_of_torch(directory: Path, torch: Any, expected: np.ndarray, tmp_path: Path) -> None:
    paths = shard(directory, torch)
    np.testing.assert_array_equal(Reranker(directory).score(PAIRS), expected)
    np.testing.assert_array_equal(
        Reranker(convert(directory, tmp_path / "converted", dtype="float32")).score(PAIRS), expected
    )
    before = Checkpoint.open(directory)
    torch.save(torch.load(paths[0]) | torch.load(paths[1]), paths[0])
    assert before.identity.changed() == [paths[0].name]
    with pytest.raises(CheckpointError, match="which another shard holds too"):
        Reranker(directory)
    paths[1].unlink()
    with pytest.raises(CheckpointError, match=rf"{paths[1].name} is named by the index but is not there"):
        Reranker(directory)
    (directory / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "../a.bin"}}')
    with pytest.raises(CheckpointError, match="is not an index of shards"):
        Reranker(directory)


def test_shards_of_torch_on_the_hub(
    hub: FakeHub, directory: Path, torch: Any, expected: np.ndarray, tmp_path: Path
) -> None:
    shard(directory, torch)
    hub.publish("test/shards", directory)
    for _ in range(2):  # the second time from the converted copy
        np.testing.assert_array_equal(Reranker("test/shards", cache_dir=tmp_path / "cache").score(PAIRS), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("checkpoint-500/config.json", "give the directory below it that is meant: checkpoint-500"),
        ("zero_to_fp32.py", "DeepSpeed saved: join them there with `python -m deepspeed"),
        (
            "pytorch_model_fsdp_0/__0_0.distcp",
            "FSDP saved: .*`accelerate merge-weights .*_fsdp_0",
        ),
        *((pattern.replace("*", "own"), re.escape(what)) for pattern, what in _OTHERS.items()),
    ],
)
def test_what_is_there_instead(directory: Path, name: str, message: str) -> None:
    (directory / "model.safetensors").unlink()
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_text("{}")
    with pytest.raises(CheckpointError, match=f"holds no model.safetensors, .*{message}"):
        Reranker(directory)
    (directory / "config.json").unlink()
    with pytest.raises(CheckpointError, match=f"has no config.json, .*{message}"):
        Reranker(directory)
