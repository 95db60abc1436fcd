"""Reading weights: strict names, shapes and dtypes, shards, and damaged files."""

import json
import re
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import FAMILY, TINY, random_tensors, shape_of, write_checkpoint
from mlx.utils import tree_flatten
from safetensors.numpy import save_file

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.checkpoints.tensors import open_tensors
from mlx_rerank.checkpoints.weights import cast, load_into, unpack
from mlx_rerank.convert import convert
from mlx_rerank.errors import CheckpointError, WeightsError
from mlx_rerank.models.encoders.xlm_roberta import XLMRoberta
from mlx_rerank.models.family import module_at

CONFIG = shape_of(TINY)
TENSORS = random_tensors(TINY)


def load(directory: Path) -> XLMRoberta:
    model = Checkpoint.open(directory).load(mx.float32, keep_quantized=False)
    assert isinstance(model, XLMRoberta)
    return model


def test_the_table_covers_model_and_checkpoint() -> None:
    rules = FAMILY.table(CONFIG)
    targets = [rule.target for rule in rules]
    assert sorted(targets) == sorted(name for name, _ in tree_flatten(XLMRoberta(CONFIG).parameters()))
    assert sorted(source.name for rule in rules for source in rule.sources) == sorted(FAMILY.source_shapes(CONFIG))


@pytest.mark.parametrize("name", ["classifier.out_proj.bias", "roberta.encoder.layer.1.attention.self.key.weight"])
def test_a_missing_tensor_is_named(tmp_path: Path, name: str) -> None:
    tensors = {key: value for key, value in TENSORS.items() if key != name}
    with pytest.raises(WeightsError, match=f"1 weights are missing: {re.escape(name)}"):
        load(write_checkpoint(tmp_path, tensors=tensors))


def test_an_unexpected_tensor_is_named(tmp_path: Path) -> None:
    tensors = TENSORS | {"roberta.other.dense.weight": np.zeros((64, 64), np.float32)}
    with pytest.raises(WeightsError, match=r"unexpected: roberta\.other\.dense\.weight"):
        load(write_checkpoint(tmp_path, tensors=tensors))


def test_what_no_classifier_reads_is_dropped_by_name(tmp_path: Path) -> None:
    pooler = {"weight": np.zeros((64, 64), np.float32), "bias": np.zeros(64, np.float32)}
    tensors = TENSORS | {f"roberta.pooler.dense.{kind}": value for kind, value in pooler.items()}
    tensors |= {"roberta.embeddings.position_ids": np.arange(66)[None]}
    load(write_checkpoint(tmp_path, tensors=tensors))


def test_a_misshapen_tensor_is_named(tmp_path: Path) -> None:
    tensors = TENSORS | {"classifier.out_proj.weight": np.zeros((3, 64), np.float32)}
    with pytest.raises(WeightsError, match=r"classifier\.out_proj\.weight has shape \[3, 64\]; .* \[1, 64\]"):
        load(write_checkpoint(tmp_path, tensors=tensors))


def test_a_tensor_that_is_not_floating_is_named(tmp_path: Path) -> None:
    tensors = TENSORS | {"classifier.dense.bias": np.zeros(64, np.int32)}
    with pytest.raises(WeightsError, match=r"classifier\.dense\.bias is .*int32"):
        load(write_checkpoint(tmp_path, tensors=tensors))


def write_shards(directory: Path) -> Path:
    """Write the tiny checkpoint in two shards with an index."""
    write_checkpoint(directory)
    (directory / "model.safetensors").unlink()
    names = sorted(TENSORS)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: TENSORS[name] for name in held}, directory / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return directory


def test_shards_hold_the_same_as_one_file(tmp_path: Path, tiny: Path) -> None:
    sharded = dict(tree_flatten(load(write_shards(tmp_path)).parameters()))
    whole = dict(tree_flatten(load(tiny).parameters()))
    assert all(mx.array_equal(sharded[name], whole[name]) for name in whole)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is named by the index"):
        load(tmp_path)


@pytest.mark.parametrize(
    "index",
    ["{", "[]", '{"weight_map": 3}', "{}", '{"weight_map": {"a": "../x.safetensors"}}', '{"weight_map": {"a": 5}}'],
)
def test_a_damaged_index_is_named(tmp_path: Path, index: str) -> None:
    write_shards(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"index\.json (is not an index|cannot be read|holds a list)"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_a_file_that_was_cut_short(tmp_path: Path, keep: float) -> None:
    path = write_checkpoint(tmp_path) / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data) if isinstance(keep, float) else keep)])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load(tmp_path)


def test_no_weights_at_all(tmp_path: Path) -> None:
    (write_checkpoint(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        open_tensors(tmp_path)


def test_one_dtype_among_loaded_weights() -> None:
    model = XLMRoberta(CONFIG)
    weights = dict(tree_flatten(model.parameters()))
    weights["layers.1.up_proj.bias"] = weights["layers.1.up_proj.bias"].astype(mx.float16)
    with pytest.raises(WeightsError, match=r"layers\.1\.up_proj\.bias is .*float16 among weights of .*float32"):
        load_into(model, weights)


def test_loaded_weights_must_have_the_models_shapes() -> None:
    model = XLMRoberta(CONFIG)
    weights = dict(tree_flatten(model.parameters()))
    weights["head.dense.bias"] = mx.zeros((63,))
    with pytest.raises(WeightsError, match=r"head\.dense\.bias has shape \[63\]; the model's is \[64\]"):
        load_into(model, weights)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_pytorch_files_hold_the_same(tmp_path: Path, dtype: str) -> None:
    import torch

    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    kind = getattr(torch, dtype)
    torch.save(
        {name: torch.from_numpy(value).to(kind) for name, value in TENSORS.items()}, tmp_path / "pytorch_model.bin"
    )
    found = module_at(load(tmp_path), "head.dense").weight
    expected = mx.array(TENSORS["classifier.dense.weight"]).astype(getattr(mx, dtype)).astype(mx.float32)
    assert mx.array_equal(found, expected)


def test_pytorch_files_run_no_code(tmp_path: Path) -> None:
    import torch

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"classifier.dense.bias": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be read as plain tensors"):
        load(tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("value", [1e5, -1e5])
def test_values_beyond_float16_are_refused_not_made_infinite(tmp_path: Path, value: float) -> None:
    tensors = TENSORS | {"classifier.dense.bias": np.where(np.arange(64) == 9, value, -0.0).astype(np.float32)}
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path, tensors=tensors))
    with pytest.raises(WeightsError, match=r"head\.dense\.bias has values beyond float16's range"):
        checkpoint.load(mx.float16, keep_quantized=False)
    checkpoint.load(mx.bfloat16, keep_quantized=False)


def test_a_converted_directory_is_read_as_strictly(tiny: Path, tmp_path: Path) -> None:
    target = convert(tiny, tmp_path / "target")
    weights = mx.load(str(target / "model.safetensors"))
    assert isinstance(weights, dict)
    for change, message in (
        ({"extra.scales": mx.zeros(3)}, r"unexpected: extra\.scales"),
        ({"head.dense.weight": mx.zeros((64, 64), dtype=mx.int32)}, r"head\.dense\.weight is .*int32"),
        ({"head.dense.weight": mx.zeros((64, 63))}, r"has shape \[64, 63\]"),
    ):
        mx.save_safetensors(str(target / "model.safetensors"), {**weights, **change})
        with pytest.raises(WeightsError, match=message):
            load(target)


@pytest.mark.parametrize("content", [["a list"], {"classifier.dense.bias": "text"}])
def test_pytorch_files_that_hold_no_tensors(tmp_path: Path, content: object) -> None:
    import torch

    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="not a dict of tensors"):
        load(tmp_path)


def test_pytorch_files_of_the_old_format_and_of_parameters(tmp_path: Path) -> None:
    import torch

    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    state = {name: torch.nn.Parameter(torch.from_numpy(value)) for name, value in TENSORS.items()}
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert mx.array_equal(module_at(load(tmp_path), "head.dense").weight, mx.array(TENSORS["classifier.dense.weight"]))


def test_tensors_are_let_go_of_as_they_are_used(tiny: Path, tmp_path: Path) -> None:
    target = convert(tiny, tmp_path / "target", layers=Quantization(32, 4, "affine"))
    raw = Checkpoint.open(target).raw
    for parameters in (lambda tensors: cast(tensors, mx.float16), lambda tensors: unpack(tensors, raw, mx.float16)):
        tensors = open_tensors(target)
        held = len(tensors)
        for n, _ in enumerate(parameters(tensors), 1):
            assert len(tensors) <= held - n
        assert not tensors


def test_the_first_five_of_many_names_are_told(tmp_path: Path) -> None:
    for count, some in ((5, "t0, t1, t2, t3, t4"), (6, "t0, t1, t2, t3, t4 ...")):
        tensors = random_tensors(TINY) | {f"t{i}": np.zeros(1, np.float32) for i in range(count)}
        directory = write_checkpoint(tmp_path / str(count), tensors=tensors)
        with pytest.raises(WeightsError, match=f"^{count} weights are unexpected: {some}$"):
            load(directory)


@pytest.mark.parametrize("shape", [(64, 3), (7,)])
def test_what_cannot_be_unpacked_is_named(tiny: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    target = convert(tiny, tmp_path / "target", layers=Quantization(32, 4, "affine"))
    raw, tensors = Checkpoint.open(target).raw, open_tensors(target)
    name = min(tensor for tensor in tensors if tensor.endswith(".scales"))
    tensors[name] = mx.zeros(shape)
    with pytest.raises(WeightsError, match=r"\.weight is not packed as config.json says .*bits"):
        mx.eval([value for _, value in unpack(tensors, raw, mx.float32)])
