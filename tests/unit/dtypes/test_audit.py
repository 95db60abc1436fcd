"""The audit finds nothing in the model as it is, and names every upcast that is planted in it."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from checkpoints import TINY, shape_of
from mlx.utils import tree_flatten

from mlx_rerank.checkpoints.packing import PACKINGS
from mlx_rerank.device import operations
from mlx_rerank.dtypes import (
    audit,
    report,
)
from mlx_rerank.errors import InputError
from mlx_rerank.models.encoders import post_norm
from mlx_rerank.models.encoders.xlm_roberta import XLMRoberta

IDS = mx.zeros((2, 8), dtype=mx.int32)
MASK = mx.ones((2, 8), dtype=mx.bool_)
PACKED = {mode: (sizes[0], bits[0], mode) for mode, (sizes, bits) in PACKINGS.items()}  # each mode's usual one


def model_of(dtype: mx.Dtype, packing: tuple[int, int, str] | None = None) -> XLMRoberta:
    model = XLMRoberta(shape_of(TINY))
    model.set_dtype(dtype)
    if packing:
        group_size, bits, mode = packing
        packed = ("embeddings.word", "layers.")
        nn.quantize(model, group_size, bits, mode=mode, class_predicate=lambda path, layer: (
            path.startswith(packed) and hasattr(layer, "to_quantized")
        ))  # fmt: skip
    return model


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
@pytest.mark.parametrize("mask", [MASK, None], ids=["padded", "equal lengths"])
@pytest.mark.parametrize("packing", [None, *PACKED.values()], ids=["full precision", *PACKED])
def test_the_model_stays_in_its_dtype(
    dtype: mx.Dtype, mask: mx.array | None, packing: tuple[int, int, str] | None
) -> None:
    model = model_of(dtype, packing)
    assert any(name.endswith("scales") for name, _ in tree_flatten(model.parameters())) == bool(packing)
    found = report(model, dtype, IDS, mask)
    assert found.violations == ()
    assert found.operations > 60
    calls = {"attention": 2, "gelu": 2}
    if dtype != mx.float32 or mx.default_device() != mx.cpu:
        calls["layer_norm"] = 5
    assert {name: count for name, count in found.float32_inside.items() if count} == calls


Plant = Callable[[XLMRoberta, pytest.MonkeyPatch], None]


def float32_parameter(module: str, name: str) -> Plant:
    def plant(model: XLMRoberta, _: pytest.MonkeyPatch) -> None:
        layer = dict(model.named_modules())[module]
        layer[name] = layer[name].astype(mx.float32)

    return plant


def own_attention(attend: Callable[[mx.array, mx.array], mx.array]) -> Plant:
    """Plant an attention written out, with one head."""

    def call(self: Any, x: mx.array, mask: mx.array, first_token_only: bool) -> mx.array:
        q, k, v = mx.split(self.qkv_proj(x), 3, axis=-1)
        attended = mx.softmax(attend(q @ k.swapaxes(1, 2), mask[:, 0]), axis=-1, precise=True) @ v
        return self.out_proj(attended[:, :1] if first_token_only else attended)

    return lambda _, patch: patch.setattr(post_norm.SelfAttention, "__call__", call)


def int_mask(scores: mx.array, mask: mx.array) -> mx.array:
    return scores + (1.0 - mask.astype(mx.int32)) * -1e4


def float32_gelu(_: XLMRoberta, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(operations, "gelu", lambda x: nn.gelu(x.astype(mx.float32)))


def mlxs_own_lookup(mode: str) -> Plant:
    def plant(model: XLMRoberta, patch: pytest.MonkeyPatch) -> None:
        group_size, bits, _ = PACKED[mode]
        words = model.embeddings.word_embeddings.to_quantized(group_size, bits, mode)
        model.embeddings.update_modules({"word_embeddings": words})
        patch.setattr(post_norm, "look_up", lambda table, ids, _: table(ids))

    return plant


def float32_scales(model: XLMRoberta, patch: pytest.MonkeyPatch) -> None:
    nn.quantize(model, 32, 8, class_predicate=lambda path, _: path == "layers.0.up_proj")
    float32_parameter("layers.0.up_proj", "scales")(model, patch)


def float32_after_attention(_: XLMRoberta, patch: pytest.MonkeyPatch) -> None:
    original = post_norm.SelfAttention.__call__
    patch.setattr(
        post_norm.SelfAttention, "__call__", lambda self, *args, **kw: original(self, *args, **kw).astype(mx.float32)
    )


def float32_from_attention(_: XLMRoberta, patch: pytest.MonkeyPatch) -> None:
    original = mx.fast.scaled_dot_product_attention
    patch.setattr(
        mx.fast,
        "scaled_dot_product_attention",
        lambda q, k, v, **rest: original(q, k, v, **rest).astype(mx.float32),
    )


def float32_in_the_head(_: XLMRoberta, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(post_norm.Head, "__call__", lambda self, x: self.out_proj(mx.tanh(x[:, 0] * mx.array([0.5])))[:, 0])


@pytest.mark.parametrize(
    ("plant", "path", "operation", "reason", "result"),
    [
        (float32_parameter("layers.1.up_proj", "bias"), "layers.1.up_proj", "AddMM",
         "layers.1.up_proj.bias is float32", "float32"),
        (float32_parameter("layers.1.output_norm", "weight"), "layers.1.output_norm", "layer_norm",
         "layers.1.output_norm.weight is float32", "float32"),
        (float32_parameter("head.out_proj", "weight"), "head.out_proj", "AddMM",
         "head.out_proj.weight is float32", "float32"),
        (own_attention(lambda scores, _: scores * mx.array(0.125)), "layers.0.attention", "Multiply",
         "constant 0.125 is float32", "float32"),
        (own_attention(int_mask), "layers.0.attention", "Subtract", "int32 argument 1 becomes float32", "float32"),
        (own_attention(lambda scores, mask: scores + mx.where(mask, 0.0, -1e4)), "layers.0.attention", "Select",
         "constant 0 is float32", "float32"),
        (own_attention(lambda scores, _: scores + mx.zeros((2, 1, 8))), "layers.0.attention", "Add",
         "constant 0 is float32", "float32"),
        (float32_gelu, "layers.0", "gelu", "float32 arises", "float32"),
        (mlxs_own_lookup("mxfp4"), "embeddings.word_embeddings", "dequantize", "bfloat16 arises", "bfloat16"),
        (mlxs_own_lookup("nvfp4"), "embeddings.word_embeddings", "dequantize", "bfloat16 arises", "bfloat16"),
        (float32_scales, "layers.0.up_proj", "QuantizedMatmul", "layers.0.up_proj.scales is float32", "float32"),
        (float32_after_attention, "layers.0.attention", "AsType", "float16 becomes float32", "float32"),
        (float32_from_attention, "layers.0.attention", "attention", "float32 arises", "float32"),
        (float32_in_the_head, "head", "Multiply", "constant 0.5 is float32", "float32"),
    ],
)  # fmt: skip
def test_a_planted_upcast_is_named(
    plant: Plant, path: str, operation: str, reason: str, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(mx.float16)
    plant(model, monkeypatch)
    found = audit(model, mx.float16, IDS, MASK)
    assert [getattr(found[0], name) for name in ("path", "operation", "reason")] == [path, operation, reason]
    assert found[0].result.dtype == result
    assert found[0].infected > 0
    assert {violation.operation for violation in found} == {operation}  # at most the same again in the other layer


def test_two_wrong_parameters_are_both_named() -> None:
    model = model_of(mx.bfloat16)
    for layer in model.layers:
        assert isinstance(layer, post_norm.Layer)
        layer.down_proj.bias = layer.down_proj.bias.astype(mx.float16)
    found = audit(model, mx.bfloat16, IDS)
    assert [violation.reason for violation in found] == [f"layers.{n}.down_proj.bias is float16" for n in range(2)]


def test_errors_of_the_models_own_keep_their_words() -> None:
    with pytest.raises(InputError, match=r"^attention_mask must be bool"):
        audit(model_of(mx.float16), mx.float16, IDS, MASK.astype(mx.int32))
