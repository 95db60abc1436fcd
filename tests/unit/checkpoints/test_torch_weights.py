"""A stranger's pytorch_model.bin: which version of torch may open it, and what it may hold."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import TINY, random_tensors, write_checkpoint

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.torch_weights import read_torch_weights
from mlx_rerank.errors import CheckpointError, MissingDependencyError, WeightsError

STATE = {name: torch.from_numpy(value) for name, value in random_tensors(TINY).items()}
NAME = "classifier.dense.bias"


def save(directory: Path, state: Any, **options: Any) -> Path:
    (write_checkpoint(directory) / "model.safetensors").unlink()
    torch.save(state, directory / "pytorch_model.bin", **options)
    return directory


@pytest.mark.parametrize("older", ["2.6.0", "2.9.1+cpu", "1.13"])
def test_an_older_torch_is_not_given_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: str) -> None:
    directory = save(tmp_path, STATE)
    monkeypatch.setattr("mlx_rerank.device.optional.version", lambda name: older)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was"))
    with pytest.raises(MissingDependencyError, match=f"may run code that is in it: torch is {older[:3]}.*>=2.10"):
        Reranker(directory)


def test_both_formats_are_read(tmp_path: Path) -> None:
    for name, new in (("new", True), ("old", False)):
        assert Reranker(save(tmp_path / name, STATE, _use_new_zipfile_serialization=new)).score("a", "b") < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({NAME: torch.zeros(1).expand(64)}, r"shape \[64\] has fewer numbers in the file"),
        ({NAME: torch.zeros(1).expand(2**40)}, r"shape \[1099511627776\] has fewer numbers"),
        ({NAME: torch.zeros(64).to_sparse()}, "is not a plain tensor"),
        ({NAME: torch.zeros(64, device="meta")}, "is not a plain tensor"),
        ({5: torch.zeros(64)}, "5 is a Tensor"),
    ],
    ids=range(5),
)
def test_what_is_no_plain_tensor(tmp_path: Path, change: dict[Any, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Reranker(save(tmp_path, STATE | change))


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "complex64", "int32"])
def test_tensors_of_other_dtypes(tmp_path: Path, kind: str) -> None:
    with pytest.raises(WeightsError, match=f"{NAME} is .*only float16, bfloat16 and float32"):
        Reranker(save(tmp_path, STATE | {NAME: torch.zeros(64).to(getattr(torch, kind))}))


def test_a_few_bytes_that_would_become_many(tmp_path: Path) -> None:
    path = save(tmp_path, STATE) / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\0" * 10**7)
    assert path.stat().st_size < 20_000
    with pytest.raises(CheckpointError, match="it is compressed"):
        read_torch_weights([path])
