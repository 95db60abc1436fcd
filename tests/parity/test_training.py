"""Training against PyTorch: the same gradients, and the same weights after AdamW's steps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bounds
import mlx.core as mx
import numpy as np
import pytest
from checkpoints import FAMILY
from training_data import difference, gradient_of, make_examples, make_run, steps_of

from mlx_rerank.device import blas
from mlx_rerank.proof.reference import ReferenceReranker
from mlx_rerank.train.steps import Step
from mlx_rerank.train.trainer import Run

pytestmark = pytest.mark.numeric

torch: Any = blas.import_with_own("torch")
F: Any = torch.nn.functional
LOSSES = [
    {"listwise": 1.0},
    {"binary": 1.0},
    {"distillation": 1.0},
    {"margin-mse": 1.0},
    {"listwise": 1.0, "binary": 0.5},
]
TEMPERATURE = 1.7
EXAMPLES = make_examples(6)
WORDS = "embeddings.word_embeddings.weight"
WORDS = "embeddings.word_embeddings.weight"
TOKEN_TYPES = "roberta.embeddings.token_type_embeddings.weight"  # part of the positions here, so of them there too


@pytest.fixture
def torch_model(tiny: Path) -> Any:
    model = ReferenceReranker(tiny).model
    token_types = model.get_parameter(TOKEN_TYPES).requires_grad_(False)
    with torch.no_grad():
        model.get_parameter("roberta.embeddings.position_embeddings.weight").add_(token_types)
        token_types.zero_()
    return model


def rows_of(step: Step) -> list[list[tuple[list[int], float, float]]]:
    """Return the groups of a step: (token ids, label, teacher's score) of each document."""
    groups = []
    for part in step.parts:
        padded = [
            (row, mask) for ids, masks, _ in part.batches for row, mask in zip(ids, masks_of(ids, masks), strict=True)
        ]
        assert part.teacher is not None
        for places, shown, labels, teacher in zip(part.places, part.shown, part.labels, part.teacher, strict=True):
            rows = [
                (padded[p][0][padded[p][1]].tolist(), float(y), float(t))
                for p, y, t in zip(places, labels, teacher, strict=True)
            ]
            groups.append([row for row, there in zip(rows, shown, strict=True) if there])
    return groups


def masks_of(ids: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
    return np.ones(ids.shape, dtype=bool) if masks is None else masks


def torch_logits(model: Any, rows: list[list[int]]) -> Any:
    """Return the logits of all rows in one batch, far more padded than those of a step."""
    longest = max(map(len, rows)) + 3
    ids = torch.tensor([row + [1] * (longest - len(row)) for row in rows])
    return model(input_ids=ids, attention_mask=(ids != 1).long()).logits.view(-1)


def torch_terms(name: str, logits: Any, labels: Any, teacher: Any) -> Any:
    """Return the terms that a loss is the mean of, for one group, by torch's own functions."""
    if name == "listwise":
        return F.cross_entropy(logits, labels / labels.sum()).reshape(1)
    if name == "binary":
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    if name == "distillation":
        return F.cross_entropy(logits / TEMPERATURE, F.softmax(teacher / TEMPERATURE, dim=0)).reshape(1)
    return F.mse_loss(logits[0] - logits[1:], teacher[0] - teacher[1:], reduction="none")


def torch_loss(model: Any, step: Step, weights: Mapping[str, float]) -> Any:
    """Return the loss of a step."""
    groups = rows_of(step)
    logits = torch_logits(model, [ids for group in groups for ids, _, _ in group])
    terms: dict[str, list[Any]] = {name: [] for name in weights}
    for group, own in zip(groups, torch.split(logits, [len(group) for group in groups]), strict=True):
        labels, teacher = (torch.tensor([row[i] for row in group]) for i in (1, 2))
        for name in weights:
            terms[name].append(torch_terms(name, own, labels, teacher))
    return sum(weight * torch.cat(terms[name]).mean() for name, weight in weights.items())


def sources_of(run: Run) -> dict[str, list[str]]:
    """Return the names of the tensors that each parameter is made of."""
    rules = FAMILY.table(run.learner.model.shape)
    return {rule.target: [source.name for source in rule.sources] for rule in rules}


def ported(run: Run, tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return torch's tensors by this package's names, query, key and value as one, without those that are frozen."""
    return {
        target: np.concatenate([tensors[name].detach().numpy() for name in names if name != TOKEN_TYPES])
        for target, names in sources_of(run).items()
        if target != WORDS
    }


def one_step(run: Run) -> Step:
    (step,) = steps_of(run, EXAMPLES)
    assert any(masks is not None for part in step.parts for _, masks, _ in part.batches)  # some of it is padding
    assert not all(part.shown.all() for part in step.parts)  # and groups differ in size
    return step


@pytest.mark.parametrize("weights", LOSSES, ids=lambda weights: " + ".join(weights))
def test_gradients_of_every_loss(tiny: Path, torch_model: Any, weights: dict[str, float]) -> None:
    temperature: dict[str, Any] = {"temperature": TEMPERATURE} if "distillation" in weights else {}
    run = make_run(tiny, losses=weights, **temperature)
    step = one_step(run)
    loss, found = gradient_of(run, step)
    expected = torch_loss(torch_model, step, weights)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    gradients = {name: value.grad for name, value in torch_model.named_parameters()}
    by_name = ported(run, gradients)
    assert by_name.keys() == found.keys()
    if weights.keys() <= {"listwise", "distillation", "margin-mse"}:  # they see differences of logits alone
        # what is left are the roundings of numbers of size 1 that add up to zero, as many as there are documents
        assert abs(found.pop("head.out_proj.bias")) <= bounds.of_sum(step.documents) * step.documents
    differences = {name: difference(gradient, by_name[name]) for name, gradient in found.items()}
    print(f"largest relative difference of a gradient: {max(differences.values()):.1e}")
    assert max(differences.values()) <= 1e-4


def test_gradients_of_word_embeddings(tiny: Path, torch_model: Any) -> None:
    run = make_run(tiny, train_embeddings=True)
    step = one_step(run)
    _, found = gradient_of(run, step)
    torch_loss(torch_model, step, dict(run.options.losses)).backward()
    expected = torch_model.get_parameter("roberta.embeddings.word_embeddings.weight").grad.numpy()
    assert difference(found[WORDS], expected) <= 1e-4


def test_weights_after_three_steps(tiny: Path, torch_model: Any) -> None:
    run = make_run(tiny, batch_size=2, learning_rate=1e-3, max_grad_norm=0.7)
    torch_model.get_parameter("roberta.embeddings.word_embeddings.weight").requires_grad_(False)
    trained = [value for value in torch_model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01)
    steps = steps_of(run, EXAMPLES)
    assert len(steps) == 3
    clear = {name: np.ones(value.shape, dtype=bool) for name, value in run.learner.parameters.items()}
    moved = 0.0
    for step, rate in zip(steps, (1e-3, 5e-4, 2e-4), strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = torch_loss(torch_model, step, run.options.losses)
        loss.backward()
        gradients = ported(run, {name: value.grad for name, value in torch_model.named_parameters()})
        norm = float(torch.nn.utils.clip_grad_norm_(trained, 0.7))
        optimizer.step()
        learned = run.learner.learn(step, rate)
        assert norm > 0.7  # so that clipping is seen
        assert learned.grad_norm == pytest.approx(norm, rel=1e-4)
        assert learned.loss == pytest.approx(loss.item(), rel=1e-4)
        moved += rate
        expected = ported(run, dict(torch_model.named_parameters()))
        for name, value in run.learner.parameters.items():
            # AdamW divides a gradient by its size, so rounding decides where it is next to nothing: there any direction
            # is as good. Keys have biases, which softmax does not see at all.
            size = np.abs(gradients[name])
            clear[name] &= size > max(0.05 * float(np.sqrt(np.mean(size**2))), 1e-6 * norm)
            errors = np.abs(np.array(value) - expected[name])
            assert errors.max() <= 2.1 * moved, name
            assert errors[clear[name]].max(initial=0) <= 6e-4 * moved, name
    assert np.mean(np.concatenate([entries.ravel() for entries in clear.values()])) > 0.5


def test_gradients_of_low_rank_updates(tiny: Path, torch_model: Any) -> None:
    run = make_run(tiny, lora_rank=3, lora_alpha=5.0)
    random = np.random.default_rng(0)
    parameters = run.learner.parameters
    for name in [name for name in parameters if name.endswith("lora_b")]:  # at zero A would have no gradient
        parameters[name] = mx.array(random.normal(size=parameters[name].shape).astype(np.float32) * 0.05)
    step = one_step(run)
    loss, found = gradient_of(run, step)
    matrices = {
        target.removesuffix(".weight"): names
        for target, names in sources_of(run).items()
        if target.startswith("layers.") and target.endswith("weight") and "norm" not in target
    }
    leaves = {name: torch.tensor(np.array(value), requires_grad=True) for name, value in parameters.items()}
    state = {name: value.detach() for name, value in torch_model.named_parameters()}
    for target, names in matrices.items():
        update = 5.0 / 3 * leaves[target + ".lora_b"] @ leaves[target + ".lora_a"]
        for name, rows in zip(names, torch.chunk(update, len(names)), strict=True):
            state[name] = state[name] + rows
    for name in ("dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias"):
        state["classifier." + name] = leaves["head." + name]

    def model(**inputs: Any) -> Any:
        return torch.func.functional_call(torch_model, state, (), inputs)

    expected = torch_loss(model, step, dict(run.options.losses))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert len(found) == 2 * 4 * 2 + 4
    for name, gradient in found.items():
        assert difference(gradient, leaves[name].grad.numpy()) <= 1e-4, name
