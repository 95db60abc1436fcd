"""The audit finds nothing in the model as it is, and every upcast that is planted in it."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from checkpoints import TINY
from mlx.utils import tree_flatten

from mlx_rerank.config import ModelConfig
from mlx_rerank.dtypes import audit, default_dtype, dtype_name, parse_dtype
from mlx_rerank.errors import InputError
from mlx_rerank.models import xlm_roberta
from mlx_rerank.models.xlm_roberta import CrossEncoder

IDS = mx.zeros((2, 8), dtype=mx.int32)
MASK = mx.ones((2, 8), dtype=mx.bool_)


def model_of(dtype: mx.Dtype, quantized: bool = False) -> CrossEncoder:
    model = CrossEncoder(ModelConfig.from_dict(TINY))
    model.set_dtype(dtype)
    if quantized:
        nn.quantize(model, 32, 8, class_predicate=lambda path, _: path.startswith("layers.") and path.endswith("_proj"))
    return model


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
@pytest.mark.parametrize("mask", [MASK, None], ids=["padded", "equal lengths"])
@pytest.mark.parametrize("quantized", [False, True])
def test_the_model_stays_in_its_dtype(dtype: mx.Dtype, mask: mx.array | None, quantized: bool) -> None:
    assert audit(model_of(dtype, quantized), dtype, IDS, mask) == []


def float32_bias(model: CrossEncoder, _: pytest.MonkeyPatch) -> None:
    model.layers[1].up_proj.bias = model.layers[1].up_proj.bias.astype(mx.float32)


def float32_norm(model: CrossEncoder, _: pytest.MonkeyPatch) -> None:
    model.layers[1].output_norm.weight = model.layers[1].output_norm.weight.astype(mx.float32)


def scale_as_array(model: CrossEncoder, patch: pytest.MonkeyPatch) -> None:
    original = xlm_roberta.SelfAttention.__call__
    patch.setattr(
        xlm_roberta.SelfAttention, "__call__", lambda self, x, mask: original(self, x * mx.array(0.125), mask)
    )


def int_mask_arithmetic(model: CrossEncoder, patch: pytest.MonkeyPatch) -> None:
    def call(self: Any, x: mx.array, mask: mx.array) -> mx.array:
        bias = (1.0 - mask.astype(mx.int32)) * -1e4  # float32, where float16 was meant
        return x + bias.sum() * 0

    patch.setattr(xlm_roberta.SelfAttention, "__call__", call)


def float32_gelu(model: CrossEncoder, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(xlm_roberta, "gelu", lambda x: nn.gelu(x.astype(mx.float32)))


@pytest.mark.parametrize(
    ("plant", "path"),
    [
        (float32_bias, "layers.1.up_proj"),
        (float32_norm, "layers.1.output_norm.layer_norm"),
        (scale_as_array, "layers.0.attention"),
        (int_mask_arithmetic, "layers.0.attention"),
        (float32_gelu, "layers.0"),
    ],
)
def test_a_planted_upcast_is_found_and_named(
    plant: Callable[[CrossEncoder, pytest.MonkeyPatch], None], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(mx.float16)
    plant(model, monkeypatch)
    found = audit(model, mx.float16, IDS, MASK)
    assert path in {violation.path for violation in found}
    assert {violation.result[0] for violation in found} == {"float32"}


def test_the_audit_leaves_the_model_as_it_was() -> None:
    model = model_of(mx.float16)
    before = dict(tree_flatten(model.parameters()))
    calls = {type(module).__call__ for module in model.modules()}
    audit(model, mx.float16, IDS, MASK)
    assert {type(module).__call__ for module in model.modules()} == calls
    assert all(value is before[name] for name, value in tree_flatten(model.parameters()))


def test_names() -> None:
    assert parse_dtype("bfloat16") == mx.bfloat16
    assert dtype_name(mx.float16) == "float16"
    with pytest.raises(InputError, match="'fp16' is not one of float16, bfloat16, float32"):
        parse_dtype("fp16")


def test_default_dtypes() -> None:
    assert default_dtype(mx.Device(mx.gpu)) == mx.float16
    assert default_dtype(mx.Device(mx.cpu)) == mx.float32
