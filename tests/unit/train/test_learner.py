"""One step: parts and padding leave its gradient as it is, and half precision stays beside float32 weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import bounds
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from training_data import difference, gradient_of, make_examples, make_run, steps_of

from mlx_rerank.device import operations
from mlx_rerank.dtypes import assert_one_dtype
from mlx_rerank.errors import NonFiniteScoreError
from mlx_rerank.pairs.batching import Batch
from mlx_rerank.train.steps import Part, Step

pytestmark = pytest.mark.numeric

EXAMPLES = make_examples(8)
ALL_LOSSES = {"listwise": 1.0, "binary": 0.5, "distillation": 0.3, "margin-mse": 0.1}


def the_step(run, examples=EXAMPLES, **other) -> Step:
    (step,) = steps_of(run, examples, **other)
    return step


def rounding(run, step: Step) -> float:
    """How far apart two gradients of a step may be, by their norms, and two losses."""
    longest = max(batch.input_ids.shape[1] for part in step.parts for batch in part.batches)
    return bounds.gradient(run.learner.model.shape, longest)


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}, {"train_embeddings": True}], ids=str)
def test_a_step_in_parts_has_the_gradient_of_a_whole_one(tiny: Path, options: dict) -> None:
    run = make_run(tiny, losses=ALL_LOSSES, batch_size=8, **options)
    whole, parts = the_step(run), the_step(run, token_budget=60)
    assert len(whole.parts) == 1
    assert len(parts.parts) >= 4
    (loss, expected), (found_loss, found) = gradient_of(run, whole), gradient_of(run, parts)
    most = rounding(run, whole)
    assert found_loss == pytest.approx(loss, rel=most)
    together = [np.concatenate([g[name].ravel() for name in expected]) for g in (found, expected)]
    assert difference(*together) <= most
    learned = [run.learner.learn(step, 0.0) for step in (whole, parts)]  # at a rate of 0 nothing moves
    assert learned[0].loss == pytest.approx(loss, rel=most)
    assert (learned[1].loss, learned[1].grad_norm) == pytest.approx((loss, learned[0].grad_norm), rel=most)


def padded(part: Part, pad: int, more: int) -> Part:
    """Return a part whose batches have more padding."""
    batches = []
    for ids, mask, segments in part.batches:
        assert segments is None
        wide = np.full((len(ids), ids.shape[1] + more), pad, dtype=np.int32)
        wide[:, : ids.shape[1]] = ids
        shown = np.zeros(wide.shape, dtype=bool)
        shown[:, : ids.shape[1]] = True if mask is None else mask
        batches.append(Batch(wide, shown))
    return replace(part, batches=batches)


def test_padding_leaves_the_gradient_as_it_is(tiny: Path) -> None:
    run = make_run(tiny, losses=ALL_LOSSES, train_embeddings=True)
    step = the_step(run)
    wide = replace(step, parts=[padded(part, 1, 9) for part in step.parts])
    (_, expected), (_, found) = gradient_of(run, step), gradient_of(run, wide)
    together = [np.concatenate([g[name].ravel() for name in expected]) for g in (found, expected)]
    assert difference(*together) <= rounding(run, wide)
    words = found["embeddings.word_embeddings.weight"]
    assert np.abs(words[1]).max() == 0  # the row of the padding
    assert np.abs(words[2]).max() > 0


def test_documents_that_are_not_there_count_nothing(tiny: Path) -> None:
    run = make_run(tiny, losses=ALL_LOSSES)
    step = the_step(run)

    def widened(values: np.ndarray) -> np.ndarray:
        return np.pad(values, ((0, 0), (0, 3)), constant_values=values.dtype.type(0))

    (part,) = step.parts
    assert part.teacher is not None
    wide = Part(part.batches, *map(widened, (part.places, part.shown, part.labels, part.teacher)))
    (loss, expected), (found_loss, found) = gradient_of(run, step), gradient_of(run, replace(step, parts=[wide]))
    most = rounding(run, step)
    assert found_loss == pytest.approx(loss, rel=most)
    together = [np.concatenate([g[name].ravel() for name in expected]) for g in (found, expected)]
    assert difference(*together) <= most


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}], ids=str)
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision(tiny: Path, dtype: mx.Dtype, options: dict) -> None:
    run, wide = make_run(tiny, dtype, **options), make_run(tiny, **options)
    step = the_step(run)
    before = dict(run.learner.parameters)
    learned, expected = run.learner.learn(step, 1e-3), wide.learner.learn(step, 1e-3)
    tolerance = 0.02 if dtype == mx.float16 else 0.15
    assert learned.loss == pytest.approx(expected.loss, rel=tolerance)
    assert learned.grad_norm == pytest.approx(expected.grad_norm, rel=2 * tolerance)
    assert {value.dtype for value in run.learner.parameters.values()} == {mx.float32}
    assert {value.dtype for value in run.learner.weights().values()} == {mx.float32}
    assert all(not mx.array_equal(value, before[name]) for name, value in run.learner.parameters.items())
    arrays, numbers = run.learner.state()
    assert {value.dtype for value in arrays.values()} == {mx.float32}
    assert numbers == {"steps": 1, "updates": 1, "scale": 2.0**12 if dtype == mx.float16 else 1.0, "good": 1}


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}], ids=str)
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_passes_stay_in_their_dtype(tiny: Path, dtype: mx.Dtype, options: dict) -> None:
    run = make_run(tiny, dtype, **options)
    run.learner.logits([])  # has the model take the weights in this dtype
    parameters: Any = tree_flatten(run.learner.model.parameters())
    assert {value.dtype for _, value in parameters} == {dtype}
    ids = mx.array([[0, 5, 2, 2, 6, 2], [0, 5, 2, 2, 2, 1]])
    with operations.differentiable():
        assert_one_dtype(run.learner.model, dtype, ids, ids != 1)


def broken(step: Step) -> Step:
    """Return a step whose labels are infinite, and with them its loss."""
    return replace(step, parts=[replace(part, labels=part.labels + np.float32(np.inf)) for part in step.parts])


def test_an_overflow_halves_the_scale_and_updates_nothing(tiny: Path) -> None:
    learner = make_run(tiny, mx.float16).learner
    step = the_step(make_run(tiny), EXAMPLES[:2])
    learner.learn(step, 1e-3)
    learner.scale, before, (arrays, _) = 2.0**40, dict(learner.parameters), learner.state()
    learned = learner.learn(step, 1e-3)
    assert learned.skipped
    assert np.isfinite(learned.loss)
    after, numbers = learner.state()
    assert all(mx.array_equal(after[name], value) for name, value in arrays.items())
    assert all(mx.array_equal(value, before[name]) for name, value in learner.parameters.items())
    assert numbers == {"steps": 2, "updates": 1, "scale": 2.0**39, "good": 0}
    learner.scale = 2.0**12
    assert not learner.learn(step, 1e-3).skipped


def test_the_scale_grows_again(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_UNTIL_DOUBLED", 2), ("_LARGEST_SCALE", 2.0**11)):
        monkeypatch.setattr(f"mlx_rerank.train.learner.{name}", value)
    learner = make_run(tiny, mx.float16).learner
    step = the_step(make_run(tiny), EXAMPLES[:1])
    learner.scale, scales = 2.0**9, []
    for _ in range(6):
        learner.learn(step, 0.0)
        scales.append(learner.scale)
    assert scales == [2.0**9, 2.0**10, 2.0**10, 2.0**11, 2.0**11, 2.0**11]


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_a_loss_that_is_not_finite(tiny: Path, dtype: mx.Dtype) -> None:
    learner = make_run(tiny, dtype).learner
    step = broken(the_step(make_run(tiny), EXAMPLES[:1]))
    before = dict(learner.parameters)
    for _ in range(12 if dtype == mx.float16 else 0):
        assert learner.learn(step, 1e-3).skipped
    with pytest.raises(NonFiniteScoreError, match=r"training step \d+ has a loss of .*: the weights are lost"):
        learner.learn(step, 1e-3)
    assert learner.whole
    assert all(mx.array_equal(value, before[name]) for name, value in learner.parameters.items())


def test_weight_decay_shrinks_what_has_no_gradient(tiny: Path) -> None:
    run = make_run(tiny, weight_decay=0.5)
    step = the_step(run)
    _, gradient = gradient_of(run, step)
    name = "embeddings.position_embeddings.weight"
    before = np.array(run.learner.parameters[name])
    run.learner.learn(step, 0.1)
    assert np.abs(gradient[name][-1]).max() == 0
    found = np.array(run.learner.parameters[name])[-1]
    np.testing.assert_allclose(
        found, before[-1] * (1 - 0.1 * 0.5), rtol=bounds.rounded(4, 1.0)
    )  # rate, decay, two of them


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16], ids=str)
def test_the_last_layer_has_a_derivative_on_every_device(
    tiny: Path, dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLX's attention of few queries has none on a GPU, and the last layer has one query."""
    fused = mx.fast.scaled_dot_product_attention
    with monkeypatch.context() as before:
        before.setattr(operations, "_SHORT", 0)
        run = make_run(tiny, dtype, losses=ALL_LOSSES)
        step = the_step(run)
        (loss, expected) = gradient_of(run, step)

    def on_a_gpu(q: mx.array, *arrays: mx.array, **options: Any) -> mx.array:
        assert q.shape[2] > 8, "the vector kernels do not produce a logsumexp"
        return fused(q, *arrays, **options)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", on_a_gpu)
    other, found = gradient_of(run, step)
    near = rounding(run, step) * {mx.float32: 1, mx.float16: 2**13}[dtype]
    assert abs(loss - other) <= near * max(1.0, abs(loss))
    together = [np.concatenate([g[name].ravel() for name in expected]) for g in (found, expected)]
    assert difference(*together) <= near
