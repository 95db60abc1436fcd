"""Packing weights: mlx-lm's format, the search for scales, and what may not be packed."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from mlx.utils import tree_flatten

from mlx_rerank import Reranker
from mlx_rerank.checkpoint import Checkpoint, load_model
from mlx_rerank.config import Quantization
from mlx_rerank.convert import convert
from mlx_rerank.dtypes import audit
from mlx_rerank.errors import CheckpointError, InputError
from mlx_rerank.quantize import search_scales
from mlx_rerank.restore import state_dict

LAYERS, WORDS = Quantization(64, 8, "affine"), Quantization(32, 4, "affine")
PAIRS = [("panda", "the bear"), ("what is panda", ""), ("熊", "a bear is the panda")]


def unpacked(packed: dict[str, mx.array], packing: Quantization) -> mx.array:
    weight, scales, biases = (packed[name] for name in ("weight", "scales", "biases"))
    return mx.dequantize(weight, scales, biases, packing.group_size, packing.bits)


@pytest.mark.parametrize("group_size", [32, 64])
def test_a_table_that_was_on_a_grid_comes_back_exactly(group_size: int) -> None:
    random = np.random.default_rng(0)
    steps = random.integers(-8, 8, (500, 4, group_size))
    steps[..., 0] = -8  # the entry that a Q4_0 block takes its scale from
    scales = random.uniform(-0.1, 0.1, (500, 4, 1)).astype(np.float16)
    table = mx.array((steps * scales.astype(np.float32)).astype(np.float16).reshape(500, -1))
    packing = Quantization(group_size, 4, "affine")
    found = unpacked(search_scales(table, packing), packing)
    plain = mx.dequantize(*mx.quantize(table, group_size, 4), group_size, 4)
    unit = float(mx.abs(table).max()) * 2**-10
    assert float(mx.abs(found - table).max()) <= unit  # float16 rounding of scale * q + bias
    assert float(mx.abs(plain - table).max()) > 10 * unit


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_search_loses_no_more_than_mlx_does(bits: int) -> None:
    mx.random.seed(0)
    table = mx.random.normal((300, 128)).astype(mx.float16)
    packing = Quantization(32, bits, "affine")
    packed = search_scales(table, packing)
    theirs = mx.quantize(table, 32, bits)
    assert [packed[name].dtype for name in ("weight", "scales", "biases")] == [array.dtype for array in theirs]
    assert [packed[name].shape for name in ("weight", "scales", "biases")] == [array.shape for array in theirs]

    def loss(values: mx.array) -> float:
        return float(mx.square(values.astype(mx.float32) - table.astype(mx.float32)).mean())

    assert loss(unpacked(packed, packing)) <= loss(mx.dequantize(*theirs, 32, bits)) * 1.001


def test_conversion_searches_the_embeddings_scales(tmp_path: Path) -> None:
    tensors = random_tensors(TINY)
    steps = np.random.default_rng(0).integers(-8, 7, (120, 2, 32))  # never the step that would give the scale away
    steps[..., 0] = -8
    name = "roberta.embeddings.word_embeddings.weight"
    tensors[name] = (steps * 0.015625).reshape(120, 64).astype(np.float32)
    source = write_checkpoint(tmp_path / "source", tensors=tensors)
    target = convert(source, tmp_path / "target", layers=LAYERS, embeddings=WORDS)
    np.testing.assert_array_equal(state_dict(target)[name], tensors[name])


def test_groups_of_zeros_stay_zeros() -> None:
    table = mx.zeros((3, 64), dtype=mx.float16)
    assert mx.array_equal(unpacked(search_scales(table, WORDS), WORDS), table)


@pytest.fixture(scope="module")
def packed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tiny, tmp_path_factory.mktemp("packed") / "model", layers=LAYERS, embeddings=WORDS)


def test_the_format_is_mlx_lms(packed: Path) -> None:
    config = json.loads((packed / "config.json").read_text())
    assert config["quantization"] == {
        "group_size": 64, "bits": 8, "mode": "affine",
        "embeddings.word_embeddings": {"group_size": 32, "bits": 4, "mode": "affine"},
    }  # fmt: skip
    loaded = mx.load(str(packed / "model.safetensors"))
    assert isinstance(loaded, dict)
    packed_paths = {name.removesuffix(".scales") for name in loaded if name.endswith(".scales")}
    layer = ("attention.qkv_proj", "attention.out_proj", "up_proj", "down_proj")
    assert packed_paths == {"embeddings.word_embeddings"} | {f"layers.{n}.{name}" for n in range(2) for name in layer}
    assert "8 bits in groups of 64, word embeddings to 4" in (packed / "README.md").read_text()


def test_packed_models_score_nearly_the_same(packed: Path, tiny: Path) -> None:
    found = Reranker(packed, device="cpu").score(PAIRS, raw_scores=True)
    np.testing.assert_allclose(found, Reranker(tiny).score(PAIRS, raw_scores=True), atol=0.5)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
def test_kept_packed_it_agrees_with_unpacked_and_keeps_its_dtype(packed: Path, dtype: mx.Dtype) -> None:
    checkpoint = Checkpoint.open(packed)
    kept = load_model(checkpoint, dtype, keep_quantized=True)
    opened = load_model(checkpoint, dtype, keep_quantized=False)
    ids, mask = mx.array([[0, 5, 2, 2, 6, 7, 2], [0, 9, 2, 2, 6, 2, 1]]), mx.array([[True] * 7, [True] * 6 + [False]])
    assert any(name.endswith("scales") for name, _ in tree_flatten(kept.parameters()))
    assert not any(name.endswith("scales") for name, _ in tree_flatten(opened.parameters()))
    tolerance = {mx.float16: 0.1, mx.bfloat16: 0.5, mx.float32: 1e-4}[dtype]  # logits are about 4
    np.testing.assert_allclose(np.array(kept(ids, mask)), np.array(opened(ids, mask)), atol=tolerance)
    assert audit(kept, dtype, ids, mask) == []


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"bits": "x", "group_size": 64}, "config.json gives bits 'x', not one of"),
        ({"bits": 8, "group_size": 64, "mode": "zzz"}, "gives mode 'zzz'"),
        ({"bits": 4, "group_size": 64}, "is not packed as config.json says"),
        ({"bits": 8}, "no 'quantization' entry with group_size and bits"),
        ([], "no 'quantization' entry"),
        ("affine", "no 'quantization' entry"),
    ],
)
def test_a_config_that_contradicts_the_packing(packed: Path, tmp_path: Path, entry: object, message: str) -> None:
    target = tmp_path / "target"
    shutil.copytree(packed, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"quantization": entry}))
    with pytest.raises(CheckpointError, match=message):
        Reranker(target, device="cpu")


@pytest.mark.parametrize(
    ("packing", "message"),
    [
        (Quantization(64, 7, "affine"), "bits 7 is not one of 2, 3, 4, 5, 6, 8"),
        (Quantization(48, 8, "affine"), "group_size 48 is not one of 32, 64, 128"),
        (Quantization(128, 8, "affine"), "group_size 128 does not divide a matrix 64 wide"),
        (Quantization(32, 4, "mxfp4"), "mode 'mxfp4' is not supported"),
    ],
)
def test_packings_that_do_not_exist(tiny: Path, tmp_path: Path, packing: Quantization, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(tiny, tmp_path / "target", layers=packing)
