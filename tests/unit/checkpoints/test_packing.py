"""Packings: which there are, and how config.json gives them."""

from typing import Any

import mlx.core as mx
import pytest

from mlx_rerank.checkpoints.packing import PACKINGS, Quantization, quantization_of
from mlx_rerank.errors import CheckpointError


@pytest.mark.parametrize("mode", PACKINGS)
def test_every_packing_is_one_that_mlx_has(mode: str) -> None:
    sizes, bits = PACKINGS[mode]
    for size in sizes:
        for count in bits:
            packing = Quantization(size, count, mode)
            assert packing.problem is None
            packed, *_ = mx.quantize(mx.ones((2, 128)), size, count, mode=mode)
            assert packed.size == 2 * 128 * count // 32


def test_what_is_no_packing() -> None:
    assert Quantization(64, 8, "other").problem == "mode 'other' is not one of affine, mxfp4, mxfp8, nvfp4"
    assert Quantization(64, 7, "affine").problem == "bits 7 is not one of 2, 3, 4, 5, 6, 8 (mode affine)"
    assert Quantization(16, 8, "affine").problem == "group_size 16 is not one of 32, 64, 128 (mode affine)"
    for mode, size, bits in (("mxfp4", 32, 5), ("mxfp8", 33, 8), ("nvfp4", 32, 4)):
        assert Quantization(size, bits, mode).problem is not None


def test_a_layers_own_entry_outweighs_the_checkpoints() -> None:
    own = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    config: dict[str, Any] = {"quantization": {"group_size": 64, "bits": 8, "layers.0": own}}
    assert quantization_of(config, "layers.0") == Quantization(32, 4, "mxfp4")
    assert quantization_of(config, "layers.1") == Quantization(64, 8, "affine")  # the mode that has no name


@pytest.mark.parametrize("entries", [None, {}, {"bits": 8}, {"group_size": 64}, "8", {"layers.0": None}])
def test_entries_that_say_too_little(entries: Any) -> None:
    with pytest.raises(CheckpointError, match=r"layers\.0 is quantized, but config\.json has no 'quantization' entry"):
        quantization_of({"quantization": entries}, "layers.0")


def test_a_packing_that_mlx_does_not_have_is_refused() -> None:
    config = {"quantization": {"group_size": 64, "bits": 7}}
    with pytest.raises(CheckpointError, match=r"layers\.0: config\.json gives a packing .*: bits 7 is not one of"):
        quantization_of(config, "layers.0")
