"""Packed directories are in the format of mlx-lm, which packs the same way."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.checkpoints.tensors import open_tensors
from mlx_rerank.convert import convert

WORDS = "embeddings.word_embeddings"


@pytest.mark.parametrize("mode", ["affine", "mxfp4"])
def test_packing_is_mlx_lms(tiny: Path, tmp_path: Path, mode: str) -> None:
    from mlx_lm.utils import quantize_model

    layers, words = Quantization(32, 4, mode), Quantization(64, 8, "affine")
    target = convert(tiny, tmp_path / "packed", layers=layers, embeddings=words)
    found, config = open_tensors(target), json.loads((target / "config.json").read_text("utf-8"))
    plain = convert(tiny, tmp_path / "plain")
    packed = {name.removesuffix(".scales") for name in found if name.endswith(".scales")}
    model: Any = Checkpoint.open(plain).load(mx.float16, keep_quantized=True)
    _, expected = quantize_model(
        model, {}, 32, 4, mode=mode,
        quant_predicate=lambda path, _: vars(words) if path == WORDS else path in packed,
    )  # fmt: skip
    for key in ("quantization", "quantization_config"):
        assert config[key] == expected[key]
    theirs: Any = Checkpoint.open(target).load(mx.float16, keep_quantized=True)
    layer = model.layers[1].up_proj
    for name, value in layer.parameters().items():
        assert mx.array_equal(value, theirs.layers[1].up_proj[name])
        assert mx.array_equal(value, found[f"layers.1.up_proj.{name}"])
