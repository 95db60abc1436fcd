"""Directories of strangers: refused by what their files say, before anything of the size they claim is made."""

import dataclasses
import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TINY, random_tensors, shape_of, tiny_tokenizer, write_checkpoint

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.config import conversion_record, read_config
from mlx_rerank.checkpoints.mapped import inputs_of
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.checkpoints.reading import read_text
from mlx_rerank.convert import convert
from mlx_rerank.errors import CheckpointError, InputError
from mlx_rerank.models import FAMILIES
from mlx_rerank.pairs.batching import Batch
from mlx_rerank.proof.audit import audit_checkpoint
from mlx_rerank.proof.reference import ReferenceReranker
from mlx_rerank.proof.verify import verify
from mlx_rerank.train import train
from mlx_rerank.train.examples import Example

SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings",
)  # fmt: skip
REFUSED = r"config\.json|unexpected|missing|converted already|is not a multiple|the model's table"
NO_NUMBERS = (True, None, "64", 64.0, float("nan"), float("inf"), -1, 0, [64], {"a": 64}, 2**31, 10**30)


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a test fail where a model is built, or a vocabulary is trimmed, for which there is a list of all ids."""

    def build(shape: Any, *_: Any) -> Any:
        raise AssertionError(f"something of {shape} was built")

    monkeypatch.setattr("mlx_rerank.convert.conversion.trim", build)
    monkeypatch.setattr(
        "mlx_rerank.models.FAMILIES", tuple(dataclasses.replace(family, build=build) for family in FAMILIES)
    )


def configure(directory: Path, **values: Any) -> Path:
    """Change a directory's config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return directory


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_sizes_that_are_none(name: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=rf"config\.json: {name} must be a number \(int\) from 1 to"):
        shape_of(TINY | {name: value})


@pytest.mark.parametrize("value", [True, "1e-5", 0, -1.0, float("nan"), 10**400, [1]], ids=lambda v: repr(v)[:9])
def test_an_epsilon_that_is_none(value: object) -> None:
    with pytest.raises(CheckpointError, match=r"layer_norm_eps must be a number \(float\)"):
        shape_of(TINY | {"layer_norm_eps": value})


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("kind", ["safetensors", "converted", "packed", "torch"])
@pytest.mark.parametrize(
    ("name", "value"), [(name, 10**9) for name in SIZES] + [("vocab_size", 121), ("num_hidden_layers", 1)]
)
def test_claims_are_compared_with_the_weights(sources: dict[str, Path], kind: str, name: str, value: int) -> None:
    directory, heads = sources[kind], {"num_attention_heads": 1} if name == "hidden_size" else {}
    before = (directory / "config.json").read_text()
    try:
        configure(directory, **heads, **{name: value})
        with pytest.raises(CheckpointError, match=REFUSED):
            Reranker(directory)
        with pytest.raises(CheckpointError, match=REFUSED):
            convert(directory, directory.parent / "never", trim_vocab=["a"])
    finally:
        (directory / "config.json").write_text(before)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One directory of each kind."""
    import torch

    root = tmp_path_factory.mktemp("sources")
    plain, packing = write_checkpoint(root / "plain"), Quantization(32, 4, "affine")
    pickled = write_checkpoint(root / "pickled")
    (pickled / "model.safetensors").unlink()
    state = {name: torch.from_numpy(value) for name, value in random_tensors(TINY).items()}
    torch.save(state, pickled / "pytorch_model.bin")
    return {
        "safetensors": plain,
        "converted": convert(plain, root / "converted"),
        "packed": convert(plain, root / "packed", layers=packing, embeddings=packing),
        "torch": pickled,
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"group_size": 0, "bits": 4}, "group_size 0 is not one of"),
        ({"group_size": 32, "bits": 10**9}, "bits 1000000000 is not one of"),
        ({"group_size": 32, "bits": True}, "bits True is not one of"),
        ({"group_size": 32.0, "bits": 4}, "group_size 32.0 is not one of"),
        ({"group_size": [32], "bits": 4}, "group_size .32. is not one of"),
        ({"group_size": 32, "bits": 4, "mode": ["affine"]}, "mode .'affine'. is not one of"),
        ({"group_size": 32, "bits": 4, "mode": None}, "mode None is not one of"),
        ({"group_size": 32, "bits": 4, "embeddings.word_embeddings": 7}, "no 'quantization' entry"),
        ({"group_size": 128, "bits": 4}, "rows 64 wide; config.json packs them in groups of 128"),
        ({"group_size": 64, "bits": 4}, "has shape .*config.json asks for"),
        (None, "no 'quantization' entry"),
        (7, "no 'quantization' entry"),
    ],
)
def test_packings_that_are_none(sources: dict[str, Path], entry: object, message: str) -> None:
    raw = read_config(sources["packed"])
    checkpoint = Checkpoint.open(sources["packed"])
    with pytest.raises(CheckpointError, match=message):
        dataclasses.replace(checkpoint, raw=raw | {"quantization": entry}).tensors()


@pytest.mark.parametrize(
    ("name", "value"),
    [("version", 7), ("source", None), ("source", ["a"]), ("revision", 7), ("packing", {}), ("vocabulary", "x"),
     ("training", [1])],
)  # fmt: skip
def test_records_of_the_wrong_type(name: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=f"config.json records .* as the {name} of a conversion"):
        conversion_record({"mlx_rerank": {name: value}})


TEXTS = {
    "deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "long": b'{"a": ' + b"9" * 5000 + b"}",
    "marked": b"\xef\xbb\xbf{}", "latin-1": '{"a": "é"}'.encode("latin-1"), "utf-16": "{}".encode("utf-16"),
    "empty": b"", "a list": b"[]", "null": b"null", "half": b'{"a": ',
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors.index.json"])
def test_texts_that_are_no_json(tmp_path: Path, text: bytes, file: str) -> None:
    directory = write_checkpoint(tmp_path / "model")
    if file.endswith("index.json"):
        (directory / "model.safetensors").unlink()
    (directory / file).write_bytes(text)
    with pytest.raises(CheckpointError, match=re.escape(file)):
        Reranker(directory)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json"])
@pytest.mark.parametrize("kind", ["directory", "pipe", "endless", "loop"])
def test_files_that_are_none(tmp_path: Path, file: str, kind: str) -> None:
    directory = write_checkpoint(tmp_path / "model")
    if file.endswith("index.json"):
        (directory / "model.safetensors").unlink()
    path = directory / file
    path.unlink(missing_ok=True)
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)  # to open it would wait for a writer
    else:
        path.symlink_to("/dev/zero" if kind == "endless" else path)
    with pytest.raises(CheckpointError, match=r"not a plain file|cannot be read|has no|holds no"):
        Reranker(directory, score_cache=tmp_path / "cache")


def test_shards_that_are_no_files(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "model")
    (directory / "model.safetensors").rename(directory / "model-1.safetensors")
    os.mkfifo(directory / "model-2.safetensors")
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=r"model-2\.safetensors is not a plain file"):
        Reranker(directory)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "model")
    data = (directory / "model.safetensors").read_bytes()
    for name in ("a.safetensors", "b.safetensors"):
        (directory / name).write_bytes(data)
    (directory / "model.safetensors").unlink()
    weight_map = {"x": "a.safetensors", "y": "b.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match="which another shard holds too"):
        Reranker(directory)


def test_a_file_larger_than_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # that takes no room on disk
    with pytest.raises(CheckpointError, match="has 1099511627776 bytes, more than"):
        read_config(tmp_path)
    with pytest.raises(CheckpointError, match="more than"):
        read_text(path)


@pytest.mark.parametrize(
    "entry",
    [{"dtype": "F32", "shape": [2**32, 2**32, 2**32], "data_offsets": [0, 4]},
     {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**60]},
     {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
     {"dtype": "Q7", "shape": [1], "data_offsets": [0, 4]}, {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]}, 7],
)  # fmt: skip
@pytest.mark.parametrize("length", [None, 2**63, 2**40])
def test_headers_of_safetensors(tmp_path: Path, entry: object, length: int | None) -> None:
    directory = write_checkpoint(tmp_path / "model")
    header = json.dumps({"a": entry}).encode()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", length or len(header)) + header + b"\0" * 4)
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        Reranker(directory)


@pytest.mark.parametrize("ids", [[[0, 120]], [[-1, 0]], [[0, 2**31 - 1]], [[0] * 65]])
def test_ids_are_checked_on_their_way_to_any_model(ids: list[list[int]]) -> None:
    with pytest.raises(InputError, match=r"outside the model's vocabulary of 120|65 tokens exceed the model's 64"):
        inputs_of(Batch(np.array(ids, np.int32)), shape_of(TINY), None)


def test_a_tokenizer_of_larger_ids_is_refused_wherever_a_model_is_used(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "model")
    tokenizer = json.loads(tiny_tokenizer().to_str())
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "panda": 3, "<unk>": 9_000_000}
    tokenizer |= {"model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"}, "added_tokens": []}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    uses: list[Callable[[], Any]] = [
        lambda: Reranker(directory),
        lambda: convert(directory, tmp_path / "never", target_bits=5.0),
        lambda: audit_checkpoint(str(directory)),
        lambda: train([Example("a", ("b", "c"), (1.0, 0.0))], tmp_path / "never", model=directory),
        lambda: verify(directory),
        lambda: ReferenceReranker(directory),
    ]
    for use in uses:
        with pytest.raises(CheckpointError, match=r"tokenizer\.json has a token of id 9000000; .* 120 rows"):
            use()


JOINER = [{"SpecialToken": {"id": "nobody", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (  # only what is not "a" is left of a text, and panics
            {
                "normalizer": {"type": "Replace", "pattern": {"Regex": "a"}, "content": ""},
                "pre_tokenizer": {"type": "FixedLength", "length": 0},
            },
            "chunk size must be non-zero",
        ),
        (
            {"post_processor": {"type": "TemplateProcessing", "single": JOINER, "pair": JOINER, "special_tokens": {}}},
            "no entry found|nobody",
        ),
    ],
)
def test_a_tokenizer_that_fails_on_a_few_texts_alone(tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    directory = write_checkpoint(tmp_path / "model")
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer | parts))
    with pytest.raises(CheckpointError, match=message):
        Reranker(directory)
