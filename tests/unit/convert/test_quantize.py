"""Packing weights: mlx-lm's format, the search for scales, and what may not be packed."""

import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import bounds
import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from mlx.utils import tree_flatten

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.packing import PACKINGS, Quantization
from mlx_rerank.checkpoints.weights import unpack
from mlx_rerank.convert import convert
from mlx_rerank.convert.quantize import describe_recipe, search_scales
from mlx_rerank.dtypes import audit
from mlx_rerank.errors import CheckpointError, DeviceError, InputError
from mlx_rerank.models.family import module_at
from mlx_rerank.proof.restore import state_dict

pytestmark = pytest.mark.numeric

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


@pytest.mark.parametrize("bits", [2, 4])
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


@pytest.mark.parametrize("layers", [LAYERS, None])
def test_a_device_that_fails(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: Quantization) -> None:
    embeddings = None if layers else WORDS  # whose search computes before anything is written
    monkeypatch.setattr(mx, "eval", Mock(side_effect=RuntimeError("[METAL] Command buffer execution failed")))
    with pytest.raises(DeviceError, match="Command buffer execution failed"):
        convert(tiny, tmp_path / "target", layers=layers, embeddings=embeddings)
    assert list(tmp_path.iterdir()) == []


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
    assert "8 bits in groups of 64, word embeddings packed to 4" in (packed / "README.md").read_text()


def test_packed_models_score_nearly_the_same(packed: Path, tiny: Path) -> None:
    found = Reranker(packed, device="cpu").score(PAIRS, raw_scores=True)
    np.testing.assert_allclose(found, Reranker(tiny).score(PAIRS, raw_scores=True), atol=0.5)


EVERY_PACKING = [
    Quantization(group_size, bits, mode)
    for mode, (group_sizes, widths) in PACKINGS.items()
    for group_size in group_sizes
    for bits in widths
    if group_size <= 64  # the tiny model is no wider
]


@pytest.fixture(scope="module", params=EVERY_PACKING, ids=lambda p: f"{p.mode}-{p.bits}-{p.group_size}")
def every_packing(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, its layers and embeddings packed in one way after the other."""
    return convert(tiny, tmp_path_factory.mktemp("every") / "model", layers=request.param, embeddings=request.param)


def test_every_packing_converts_loads_and_keeps_its_dtype(every_packing: Path) -> None:
    checkpoint = Checkpoint.open(every_packing)
    ids, mask = mx.array([[0, 5, 2, 2, 6, 7, 2], [0, 9, 2, 2, 6, 2, 1]]), mx.array([[True] * 7, [True] * 6 + [False]])
    for dtype in (mx.float16, mx.bfloat16, mx.float32):
        kept = checkpoint.load(dtype, keep_quantized=True)
        opened = checkpoint.load(dtype, keep_quantized=False)
        assert any(name.endswith("scales") for name, _ in tree_flatten(kept.parameters()))
        assert not any(name.endswith("scales") for name, _ in tree_flatten(opened.parameters()))
        out, name = (
            np.array(module_at(opened, "head.out_proj").weight.astype(mx.float32)),
            str(dtype).rpartition(".")[-1],
        )
        most = bounds.logits(checkpoint.shape, ids.shape[1], out, name)
        assert np.abs(np.array(kept(ids, mask)) - np.array(opened(ids, mask))).max() <= most
        for batch in ((ids, mask), (ids[:, :6], None)):
            assert audit(kept, dtype, *batch) == []
        assert audit(opened, dtype, ids, mask) == []
    names = {name for name, _ in tree_flatten(opened.parameters())}
    assert {"head.dense.weight", "embeddings.position_embeddings.weight"} <= names


def test_bits_unpacked_in_numpy_are_those_that_mlx_unpacks(every_packing: Path) -> None:
    tensors = mx.load(str(every_packing / "model.safetensors"))
    assert isinstance(tensors, dict)
    ours = state_dict(every_packing)
    config = json.loads((every_packing / "config.json").read_text())
    for name, value in unpack(tensors, config, mx.float32):
        if name in ("embeddings.word_embeddings.weight", "layers.1.down_proj.weight"):
            theirs = {"embeddings.word_embeddings.weight": "roberta.embeddings.word_embeddings.weight"}.get(
                name, "roberta.encoder.layer.1.output.dense.weight"
            )
            expected = np.array(value)  # a multiple of a scale, to which a bias as large is added
            atol = bounds.rounded(2, 2 * np.abs(expected).max())
            np.testing.assert_allclose(ours[theirs], expected, rtol=0, atol=atol)


def test_encoder_and_embeddings_are_chosen_apart(tiny: Path, tmp_path: Path) -> None:
    def packed(target: Path) -> set[str]:
        loaded = mx.load(str(target / "model.safetensors"))
        assert isinstance(loaded, dict)
        return {name.removesuffix(".scales") for name in loaded if name.endswith(".scales")}

    words = convert(tiny, tmp_path / "words", embeddings=Quantization(32, 4, "mxfp4"))
    layers = convert(tiny, tmp_path / "layers", layers=LAYERS)
    assert packed(words) == {"embeddings.word_embeddings"}
    assert "| float16; word embeddings packed to 4 bits in groups of 32 (mxfp4) |" in (words / "README.md").read_text()
    assert len(packed(layers)) == 8
    assert all(path.startswith("layers.") for path in packed(layers))
    expected = Reranker(tiny, device="cpu").score(PAIRS, raw_scores=True)
    for target in (words, layers):
        found = Reranker(target, device="cpu").score(PAIRS, raw_scores=True)
        assert 0 < np.abs(found - expected).max() < 2


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"bits": "x", "group_size": 64}, "bits 'x' is not one of 2, 3, 4, 5, 6, 8"),
        ({"bits": 8, "group_size": 64, "mode": "zzz"}, "mode 'zzz' is not one of affine"),
        ({"bits": 4, "group_size": 64}, r"has shape .*; config.json asks for"),
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
        (
            Quantization(128, 8, "affine"),
            "group_size 128 does not divide the rows of layers.0.attention.qkv_proj",
        ),
        (Quantization(64, 4, "mxfp4"), r"group_size 64 is not one of 32 \(mode mxfp4\)"),
        (Quantization(16, 8, "nvfp4"), r"bits 8 is not one of 4 \(mode nvfp4\)"),
        (Quantization(64, 4, "gptq"), "mode 'gptq' is not one of affine, mxfp4, mxfp8, nvfp4"),
    ],
)
def test_packings_that_do_not_exist(tiny: Path, tmp_path: Path, packing: Quantization, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(tiny, tmp_path / "target", layers=packing)


def test_one_number_of_bits_reads_as_one() -> None:
    recipe = {"layers.0.up_proj": Quantization(32, 4, "affine"), "layers.1.up_proj": Quantization(64, 4, "affine")}
    assert (
        describe_recipe(recipe, "embeddings.word_embeddings") == "encoder packed to 4 bits, layer by layer as measured"
    )


@pytest.mark.parametrize("name", ["layers", "embeddings"])
@pytest.mark.parametrize("wrong", [{}, 0, "", False, 8])
def test_what_is_no_packing_is_not_taken_for_none(tiny: Path, tmp_path: Path, name: str, wrong: object) -> None:
    with pytest.raises(InputError, match="a packing is a Quantization"):
        convert(tiny, tmp_path / "target", **{name: wrong})  # pyright: ignore[reportArgumentType]
