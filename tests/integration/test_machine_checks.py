"""Checks of a machine: right on this one, and each notices a fault of the kind that it is there for."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_rerank.device import operations
from mlx_rerank.dtypes import NAMES
from mlx_rerank.proof import model_checks, operation_checks
from mlx_rerank.scoring.engine import Engine

pytestmark = pytest.mark.numeric
REAL = operations.attention


def wrong(check: Callable[[str], Any]) -> list[str]:
    """Return what a check finds wrong."""
    return [finding.what for finding in check("cpu") if not finding.passed]


def of(whats: list[str], *words: str) -> bool:
    """Tell whether these are all about so many words, one each."""
    return len(whats) == len(words) and all(word in what for word, what in zip(words, whats, strict=True))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention at two lengths alone."""
    monkeypatch.setattr(operation_checks, "_ATTENDED", ((1, 1023), (1, 1024)))


def as_tf32(x: mx.array) -> mx.array:
    """With ten bits after the point."""
    return (x.view(mx.uint32) & 0xFFFFE000).view(mx.float32)


def test_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not wrong(operation_checks.float32)
    real = mx.matmul

    def planted(x: mx.array, y: mx.array) -> mx.array:
        return real(as_tf32(x), as_tf32(y)) if len(x) > 16 else real(x, y)

    monkeypatch.setattr(mx, "matmul", planted)
    assert of(wrong(operation_checks.float32), "product of 512 x")
    assert all("MLX_ENABLE_TF32=0" in finding.remedy for finding in operation_checks.float32("cpu"))


def test_attention() -> None:
    found = list(operation_checks.attention("cpu"))
    assert all(finding.passed for finding in found)
    assert len(found) == 12


def spoiled(value: float) -> Any:
    """Return attention with a value added to one number of 512, from 1,024 tokens on."""

    def planted(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None) -> mx.array:
        attended = REAL(q, k, v, scale, mask)
        if k.shape[2] < 1024:
            return attended
        return attended + mx.zeros_like(attended).at[1, 3, 0, 63].add(mx.array(value, q.dtype))

    return planted


def blind(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None) -> mx.array:
    """Shows one token too many of each row."""
    shown = None if mask is None else mx.concatenate([mask[..., :1], mask[..., :-1]], axis=-1)
    return REAL(q, k, v, scale, shown)


def narrow(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None) -> mx.array:
    """From float32 rounded to TF32."""
    if q.dtype != mx.float32:
        return REAL(q, k, v, scale, mask)
    return REAL(as_tf32(q), as_tf32(k), as_tf32(v), scale, mask)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (spoiled(0.01), [f"1024 tokens, 2 rows, {dtype}" for dtype in NAMES]),
        (spoiled(mx.nan), [f"1024 tokens, 2 rows, {dtype}" for dtype in NAMES]),
        (blind, [*NAMES, *NAMES]),
        (narrow, ["float32", "float32"]),
    ],
)
def test_wrong_attention(plant: Any, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "attention", plant)
    assert of(wrong(operation_checks.attention), *found)


def test_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not wrong(operation_checks.packed)
    real = mx.quantized_matmul

    def planted(x: mx.array, *arrays: Any, bits: int, mode: str, **options: Any) -> mx.array:
        result = real(x, *arrays, bits=bits, mode=mode, **options)
        return result * 1.001 if mode == "mxfp8" or (bits == 5 and len(x) == 1) else result

    monkeypatch.setattr(mx, "quantized_matmul", planted)
    assert of(wrong(operation_checks.packed), "affine", "mxfp8")


def test_sums_and_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not wrong(operation_checks.errors)
    assert not wrong(operation_checks.sums)
    monkeypatch.setattr(operation_checks, "to_numpy", lambda array: np.zeros(array.shape))
    assert of(wrong(operation_checks.errors), "cannot be read", "wrong sums after")
    assert of(wrong(operation_checks.sums), "wrong sums on the cpu (architecture ")


@pytest.mark.one_kernel
def test_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    real = operations.gelu

    def planted(x: mx.array) -> mx.array:
        return real(x) * (1.001 if x.dtype == mx.float32 and not operations._with_derivatives.get() else 1)

    monkeypatch.setattr(operations, "gelu", planted)
    monkeypatch.setattr(model_checks, "NAMES", ("float16", "float32"))
    assert of(wrong(model_checks.dtypes), "float32, against", "as by default, against")


@pytest.mark.one_kernel
def test_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Engine._finish
    monkeypatch.setattr(Engine, "_finish", lambda self, logits: np.roll(real(self, logits), 1))
    assert of(wrong(model_checks.batches), "side by side")


@pytest.mark.one_kernel
def test_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    def mixed(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None) -> mx.array:
        return REAL(q, k, mx.concatenate([v[1:], v[:1]]), scale, mask)

    monkeypatch.setattr(operations, "attention", mixed)
    assert of(wrong(model_checks.largest), "logits of 4 x 128 tokens")


@pytest.mark.one_kernel
@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (lambda attended: attended * mx.array(mx.nan, attended.dtype), ["loss, float16", "gradient, float16"]),
        (mx.stop_gradient, ["gradient, float16"]),
    ],
)
def test_training(plant: Any, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None) -> mx.array:
        attended = REAL(q, k, v, scale, mask)
        return plant(attended) if q.dtype == mx.float16 and mask is None else attended

    monkeypatch.setattr(operations, "attention", planted)
    monkeypatch.setattr(model_checks, "NAMES", ("float16",))
    assert of(wrong(model_checks.training), *found)
