"""Losses by hand, and at the ends of the range."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_rerank.train import losses
from mlx_rerank.train.losses import Targets

SHOWN = mx.array([[True, True, True], [True, True, False]])
LABELS = mx.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
TEACHER = mx.array([[3.0, 1.0, 0.0], [2.0, 2.5, 0.0]])
LOGITS = mx.array([[2.0, -1.0, 0.5], [0.3, -0.2, 99.0]])
TARGETS = Targets(SHOWN, LABELS, TEACHER)


def softmax(values: np.ndarray) -> np.ndarray:
    return np.exp(values) / np.exp(values).sum()


def test_by_hand() -> None:
    rows = [np.array([2.0, -1.0, 0.5]), np.array([0.3, -0.2])]
    listwise = -np.log(softmax(rows[0])[0]) - 0.5 * np.log(softmax(rows[1])).sum()
    assert float(losses.listwise(LOGITS, TARGETS)) == pytest.approx(listwise, rel=1e-5)
    labels = [np.array([1.0, 0, 0]), np.array([0.5, 0.5])]
    binary = sum((np.log1p(np.exp(row)) - y * row).sum() for row, y in zip(rows, labels, strict=True))
    assert float(losses.binary(LOGITS, TARGETS)) == pytest.approx(binary, rel=1e-5)
    teachers = [np.array([3.0, 1, 0]), np.array([2.0, 2.5])]
    soft = sum(-(softmax(t / 2) * np.log(softmax(row / 2))).sum() for row, t in zip(rows, teachers, strict=True))
    assert float(losses.distillation(LOGITS, TARGETS, 2.0)) == pytest.approx(soft, rel=1e-5)
    margins = (3.0 - 2.0) ** 2 + (1.5 - 3.0) ** 2 + (0.5 + 0.5) ** 2
    assert float(losses.margin_mse(LOGITS, TARGETS)) == pytest.approx(margins, rel=1e-5)


@pytest.mark.parametrize("name", ["listwise", "binary", "distillation", "margin_mse"])
@pytest.mark.parametrize("size", [0.0, 90.0, 1e4])
def test_large_logits_have_finite_gradients(name: str, size: float) -> None:
    def loss(logits: mx.array) -> mx.array:
        more = (1.0,) if name == "distillation" else ()
        return getattr(losses, name)(logits, TARGETS, *more)

    value, gradient = mx.value_and_grad(loss)(mx.array([[-1.0, 1.0, 0.0], [1.0, -1.0, 1.0]]) * size)
    assert np.isfinite(float(value))
    assert np.isfinite(np.array(gradient)).all()
    assert float(gradient[1, 2]) == 0  # there is no document


def test_groups_without_a_positive_count_nothing() -> None:
    targets = Targets(SHOWN, LABELS * 0.0)
    value, gradient = mx.value_and_grad(lambda logits: losses.listwise(logits, targets))(LOGITS)
    assert float(value) == 0
    assert not np.array(gradient).any()
