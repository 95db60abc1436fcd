"""The audit of single steps and of MLX's own modules, that it leaves them as they were, and names of dtypes."""

import contextlib
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_rerank.device import operations
from mlx_rerank.device.thread import device_thread
from mlx_rerank.dtypes import (
    FLOAT32_INSIDE,
    assert_one_dtype,
    audit,
    default_dtype,
    dtype_name,
    parse_dtype,
)
from mlx_rerank.errors import InputError


class Steps(nn.Module):
    """A model of a few steps, over two parameters."""

    def __init__(self, steps: Callable[[Any, mx.array], Any]) -> None:
        super().__init__()
        self.steps, self.weight = steps, mx.ones((8,), mx.float16)
        self.table = mx.ones((4, 8), mx.float32)

    def __call__(self, x: mx.array) -> Any:
        return self.steps(self, x)


HALF, SINGLE = mx.zeros((2, 8), mx.float16), mx.zeros((2, 8), mx.float32)


@pytest.mark.parametrize(
    ("steps", "dtype", "argument", "expected"),
    [
        (lambda _, x: (x * 2).astype(mx.float32)[0], mx.float16, HALF, []),
        (lambda _, x: [x, {"casts": (x + 1).astype(mx.float32)}], mx.float16, HALF, []),
        (lambda _, x: mx.fast.rope(x[None], 8, traditional=False, base=1e4, scale=1.0, offset=mx.argmax(x)),
         mx.float16, HALF, []),
        (lambda _, x: [y := x.astype(mx.float32), mx.exp(y)], mx.float16, HALF,
         [("AsType", "float16 argument 0 becomes float32", 1)]),
        (lambda own, x: mx.fast.rms_norm(x, own.weight, 1e-5), mx.float16, HALF, []),
        (lambda own, x: x * own.weight.astype(mx.float32), mx.float32, SINGLE, []),
        (lambda _, x: mx.square(mx.exp(x * mx.array(2.0)) + 1).astype(mx.float16), mx.float16, HALF,
         [("Multiply", "constant 2 is float32", 3)]),
        (lambda _, x: mx.exp(mx.square(x.astype(mx.float32))), mx.float16, HALF,
         [("AsType", "float16 argument 0 becomes float32", 2)]),
        (lambda _, x: mx.where(x.astype(mx.float32) > 0, x, 0), mx.float16, HALF,
         [("AsType", "float16 argument 0 becomes float32", 0)]),
        (lambda _, x: mx.exp(x.astype(mx.float16).astype(mx.float32)), mx.float32, SINGLE,
         [("AsType", "float32 argument 0 becomes float16", 0)]),
        (lambda own, x: x + own.weight.astype(mx.float32), mx.float16, HALF,
         [("Add", "float16 argument 0 becomes float32", 0)]),
        (lambda own, x: x * mx.exp(own.table[:1]) + own.table[1:2], mx.float16, HALF,
         [("Multiply", "Exp(table) is float32", 1)]),
        (lambda own, x: own.table[x.astype(mx.int32)], mx.float16, HALF, [("Gather", "table is float32", 1)]),
        (lambda own, x: x * own.weight + own.weight, mx.float16, SINGLE, [("Multiply", "argument 0 is float32", 1)]),
        (lambda _, x: x + mx.arange(8.0), mx.float16, HALF, [("Add", "Arange() is float32", 0)]),
        (lambda _, x: x.astype(mx.int32) / 2, mx.float16, HALF, [("Divide", "int32 argument 0 becomes float32", 0)]),
    ],
)  # fmt: skip
def test_single_steps(
    steps: Callable[[Any, mx.array], Any], dtype: mx.Dtype, argument: mx.array, expected: list[tuple[str, str, int]]
) -> None:
    found = audit(Steps(steps), dtype, argument)
    assert [(violation.operation, violation.reason, violation.infected) for violation in found] == expected


def test_assert_one_dtype_reads_well() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 2))
    model.set_dtype(mx.float16)
    assert_one_dtype(model, mx.float16, HALF)
    model.layers[2].bias = mx.zeros((2,))
    with pytest.raises(AssertionError) as caught:
        assert_one_dtype(model, mx.float16, HALF)
    assert str(caught.value) == (
        "Sequential leaves float16 in 1 place:\n"
        "  layers.2: layers.2.bias is float32 in AddMM(float16 [2, 8], float16 [8, 2] layers.2.weight, "
        "float32 [2] layers.2.bias) -> float32 [2, 2]; 0 more follow"
    )


def test_mlxs_own_encoder() -> None:
    model = nn.TransformerEncoder(2, 16, 2)
    model.set_dtype(mx.float16)
    x, mask = mx.zeros((1, 5, 16), mx.float16), nn.MultiHeadAttention.create_additive_causal_mask(5)
    assert_one_dtype(model, mx.float16, x, None)
    assert_one_dtype(model, mx.float16, x, mask=mask.astype(mx.float16))
    with pytest.raises(InputError, match=r"^layers\.0\.attention\.scaled_dot_product_attention cannot be .*Mask"):
        assert_one_dtype(model, mx.float16, x, mask)


def test_a_model_that_leaves_mlx_is_refused_where_it_does() -> None:
    with pytest.raises(InputError, match=r"^layers\.0 cannot be traced: ValueError"):
        audit(nn.Sequential(Steps(lambda _, x: np.float32(0.5) * x)), mx.float16, HALF)


def test_an_operation_belongs_to_the_innermost_module() -> None:
    def step(own: Any, x: mx.array) -> mx.array:
        own.inner.steps = lambda _, y: (x + y) * mx.array(3.0)
        return own.inner(x) + 1

    model = Steps(step)
    model.inner = Steps(step)
    assert [violation.path for violation in audit(model, mx.float16, HALF)] == ["inner"]


def test_a_model_may_catch_its_own_errors() -> None:
    def step(own: Any, x: mx.array) -> mx.array:
        with contextlib.suppress(ValueError):
            own.inner(x[:, :3])
        return own.other(x * mx.array(3.0))

    model = Steps(step)
    model.inner, model.other = nn.Linear(8, 8), nn.Linear(8, 8)
    model.set_dtype(mx.float16)
    assert [(violation.path, violation.operation) for violation in audit(model, mx.float16, HALF)] == [("", "Multiply")]


def test_a_compiled_function_computes_the_same_afterwards() -> None:
    normalise = mx.compile(lambda x: mx.fast.layer_norm(x, None, None, 1e-5))
    x = mx.arange(8, dtype=mx.float16)[None]
    assert audit(Steps(lambda _, x: normalise(x)), mx.float16, x) == []
    assert mx.array_equal(normalise(x), mx.fast.layer_norm(x, None, None, 1e-5))


def test_another_thread_computes_the_same_meanwhile() -> None:
    values = np.arange(8, dtype=np.float32)[None]

    def normalised() -> np.ndarray:
        return np.array(nn.LayerNorm(8)(mx.array(values)))

    seen: list[np.ndarray] = []

    def step(own: Any, x: mx.array) -> mx.array:
        seen.append(device_thread().submit(normalised).result())
        return own.norm(x)

    model = Steps(step)
    model.norm = nn.LayerNorm(8)
    assert audit(model, mx.float32, mx.array(values)) == []
    np.testing.assert_array_equal(seen[0], normalised())


@pytest.mark.parametrize("dtype", [mx.float16, mx.float32], ids=["clean", "raising"])
def test_the_audit_leaves_everything_as_it_was(dtype: mx.Dtype) -> None:
    model = nn.TransformerEncoder(1, 16, 2)
    model.set_dtype(mx.float16)

    def functions() -> list[Any]:
        return [getattr(mx.fast, name, None) for name in FLOAT32_INSIDE] + [
            mx.dequantize,
            operations.gelu,
            operations.attention,
        ]

    found = functions()
    before = dict(tree_flatten(model.parameters()))
    calls = {type(module): type(module).__call__ for module in model.modules()}
    try:
        audit(model, mx.float16, mx.zeros((1, 5, 16), mx.float16), mx.zeros((5, 5), dtype))
    except InputError:
        assert dtype == mx.float32
    assert {type(module): type(module).__call__ for module in model.modules()} == calls
    assert functions() == found
    assert all(value is before[name] for name, value in tree_flatten(model.parameters()))


def test_names() -> None:
    assert parse_dtype("bfloat16") == mx.bfloat16
    assert dtype_name(mx.float16) == "float16"
    with pytest.raises(InputError, match="'fp16' is not one of float16, bfloat16, float32"):
        parse_dtype("fp16")


def test_default_dtypes() -> None:
    assert default_dtype(mx.Device(mx.gpu)) == mx.float16
    assert default_dtype(mx.Device(mx.cpu)) == mx.float32
