"""Low-rank updates: nothing at first, the same model once merged, and nothing else changes."""

from pathlib import Path
from typing import Any

import bounds
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from training_data import make_examples, make_run, steps_of

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.models.family import module_at
from mlx_rerank.train import TrainingOptions, train
from mlx_rerank.train.lora import LoRALinear
from mlx_rerank.train.trainer import Run

pytestmark = pytest.mark.numeric

EXAMPLES = make_examples(6)


@pytest.mark.parametrize("biased", [True, False])
def test_merging_is_exact_in_whole_numbers(biased: bool) -> None:
    random = np.random.default_rng(0)

    def whole(*shape: int) -> mx.array:
        return mx.array(random.integers(-4, 5, shape).astype(np.float32))

    linear = nn.Linear(24, 16, bias=biased)
    linear.weight = whole(16, 24)
    if biased:
        linear.bias = whole(16)
    module = LoRALinear(linear, 3, 0.5, mx.random.key(0))
    module.lora_a, module.lora_b = whole(3, 24), whole(16, 3)
    linear.weight = linear.weight + module.added()
    x = whole(2, 5, 24)
    assert not mx.array_equal(module.weight, linear.weight)
    np.testing.assert_array_equal(np.array(module(x)), np.array(linear(x)))
    np.testing.assert_array_equal(np.array(module.some_outputs(x, slice(3, 9))), np.array(linear(x))[..., 3:9])


def test_it_begins_with_the_model_as_it_was(tiny: Path) -> None:
    plain, low = make_run(tiny), make_run(tiny, lora_rank=2)
    for before, after in zip(plain.logits(EXAMPLES), low.logits(EXAMPLES), strict=True):
        np.testing.assert_array_equal(before, after)
    module = low.learner.model.layers[1].up_proj
    assert isinstance(module, LoRALinear)
    assert module.lora_a.shape == (2, 64)
    assert float(mx.abs(module.lora_a).max()) > 0  # or nothing could be learnt
    others = [make_run(tiny, lora_rank=2, seed=seed).learner.parameters["layers.0.up_proj.lora_a"] for seed in (0, 1)]
    assert mx.array_equal(others[0], low.learner.parameters["layers.0.up_proj.lora_a"])
    assert not mx.array_equal(others[0], others[1])


def trained_run(directory: Path, **options: Any) -> Run:
    run = make_run(directory, learning_rate=0.01, batch_size=2, **options)
    for step in steps_of(run, EXAMPLES):
        run.learner.learn(step, 0.01)
    return run


def test_what_changes(tiny: Path) -> None:
    before = make_run(tiny, lora_rank=2)
    start = dict(tree_flatten(before.learner.model.parameters()))
    learner = trained_run(tiny, lora_rank=2).learner
    learner.logits([])  # has the model take the weights as they are now
    after = dict(tree_flatten(learner.model.parameters()))
    changed = {name for name in start if not mx.array_equal(start[name], after[name])}
    updates = {name for name in start if name.endswith(("lora_a", "lora_b"))}
    head = {f"head.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias")}
    assert len(updates) == 2 * 4 * 2
    assert changed == updates | head == set(learner.parameters)
    matrices = {name.rpartition(".")[0] + ".weight" for name in updates}
    assert set(learner.weights()) == head
    assert set(learner.updates()) == matrices


@pytest.mark.parametrize("rank", [1, 4])
def test_a_merged_directory_scores_as_the_trained_model(tiny: Path, tmp_path: Path, rank: int) -> None:
    options = TrainingOptions(lora_rank=rank, lora_alpha=3.0, learning_rate=0.01, batch_size=2, epochs=2)
    target = train(EXAMPLES, tmp_path / "out", model=tiny, options=options, dtype="float32", show_progress=False)
    run = Run(Checkpoint.open(tiny), options, mx.float32)
    for epoch_step, step in enumerate(steps_of(run, EXAMPLES)):
        run.learner.learn(step, options.rate(epoch_step, 6))
    expected = np.concatenate(run.logits(EXAMPLES))
    pairs = [(example.query, document) for example in EXAMPLES for document in example.documents]
    found = Reranker(target, device="cpu").logits(pairs).logits
    assert np.abs(found - Reranker(tiny, device="cpu").logits(pairs).logits).max() > 0.1
    out = np.array(module_at(run.learner.model, "head.out_proj").weight)
    assert np.abs(found - expected).max() <= bounds.logits(Checkpoint.open(tiny).shape, 64, out)


def test_updates_are_added_to_the_weights_as_they_were_read(tiny: Path, tmp_path: Path) -> None:
    options = TrainingOptions(lora_rank=1, learning_rate=1e-9, dtype="bfloat16")
    target = train(EXAMPLES, tmp_path / "out", model=tiny, options=options, dtype="float32", show_progress=False)
    models = (Checkpoint.open(path).load(mx.float32, keep_quantized=False) for path in (tiny, target))
    before, after = (module_at(model, "layers.0.up_proj").weight for model in models)
    assert float(mx.abs(after - before).max()) < 1e-6  # bfloat16 would move some by a hundredth


def test_every_matrix_of_every_layer_is_adapted(tiny: Path) -> None:
    model = Checkpoint.open(tiny).load(mx.float32, keep_quantized=False)
    parameters: Any = tree_flatten(model.parameters())
    matrices = {name for name, value in parameters if name.startswith("layers.") and value.ndim == 2}
    assert set(make_run(tiny, lora_rank=2).learner.updates()) == matrices
