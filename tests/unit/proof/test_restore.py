"""From a converted directory back to Hugging Face tensors."""

from pathlib import Path

import bounds
import numpy as np
import pytest
from checkpoints import TINY, random_tensors

from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.convert import convert
from mlx_rerank.proof.restore import state_dict

TYPES, POSITIONS = (f"roberta.embeddings.{kind}_embeddings.weight" for kind in ("token_type", "position"))


def test_the_tensors_come_back(tiny: Path, tmp_path: Path) -> None:
    expected = random_tensors(TINY)
    expected[POSITIONS] = expected[POSITIONS] + expected[TYPES]
    expected[TYPES] = np.zeros_like(expected[TYPES])
    found = state_dict(convert(tiny, tmp_path / "target", dtype="float32"))
    assert sorted(found) == sorted(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_packed_weights_are_unpacked_as_mlx_does(tiny: Path, tmp_path: Path, bits: int) -> None:
    import mlx.core as mx

    target = convert(tiny, tmp_path / "target", dtype="float32", layers=Quantization(32, bits, "affine"))
    found = state_dict(target)["roberta.encoder.layer.1.intermediate.dense.weight"]
    weights = mx.load(str(target / "model.safetensors"))
    assert isinstance(weights, dict)
    packed, scales, biases = (weights[f"layers.1.up_proj.{kind}"] for kind in ("weight", "scales", "biases"))
    expected = np.array(mx.dequantize(packed, scales, biases, 32, bits))
    # a multiple of a scale, to which a bias as large is added, at once or one after the other
    np.testing.assert_allclose(found, expected, rtol=0, atol=bounds.rounded(2, 2 * np.abs(expected).max()))
