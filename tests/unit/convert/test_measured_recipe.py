"""The measured recipe: bits go where the logits need them, and the target is met."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import FAMILY, TINY, random_tensors, shape_of, write_checkpoint
from mlx.utils import tree_flatten

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.convert import convert
from mlx_rerank.convert.measured_recipe import Choice, choices_for, measured_recipe, within_budget
from mlx_rerank.convert.quantize import Recipe
from mlx_rerank.errors import InputError, NonFiniteScoreError
from mlx_rerank.models.encoders.xlm_roberta import XLMRoberta

CONFIG = TINY | {"num_hidden_layers": 3}
BATCHES = [
    {
        "input_ids": mx.array([[0, 5, 9, 2, 2, 6, 7, 2], [0, 9, 2, 2, 6, 2, 1, 1]]),
        "attention_mask": mx.array([[True] * 8, [True] * 6 + [False] * 2]),
    },
    {"input_ids": mx.array([[0, 11, 2, 2, 50, 51, 52, 53, 54, 2]]), "attention_mask": None},
]
WORDS = "embeddings.word_embeddings"


def layer_paths(layer: int) -> list[str]:
    return [f"layers.{layer}.{name}" for name in ("attention.qkv_proj", "attention.out_proj", "up_proj", "down_proj")]


def measured(model: XLMRoberta, target: float) -> Recipe:
    return measured_recipe(model, FAMILY, shape_of(CONFIG), BATCHES, target, scale_bits=16)


@pytest.fixture(scope="module")
def lopsided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose second layer adds nothing, and whose embeddings are on a 4-bit grid."""
    tensors = random_tensors(CONFIG)
    for name, value in tensors.items():
        if ".layer.1." in name and value.ndim == 2:
            tensors[name] = np.zeros_like(value)
    steps = np.random.default_rng(0).integers(-8, 8, (120, 2, 32))
    steps[..., 0] = -8
    steps[..., 1:] = np.minimum(steps[..., 1:], 6)  # never the step that would give the scale away
    tensors["roberta.embeddings.word_embeddings.weight"] = (steps / 64).reshape(120, 64).astype(np.float32)
    return write_checkpoint(tmp_path_factory.mktemp("lopsided") / "model", CONFIG, tensors)


@pytest.fixture(scope="module")
def model(lopsided: Path) -> XLMRoberta:
    model = Checkpoint.open(lopsided).load(mx.float32, keep_quantized=False)
    assert isinstance(model, XLMRoberta)
    return model


def average_bits(model: XLMRoberta, recipe: Recipe) -> float:
    weights = {path: module.weight.size for path, module in model.named_modules() if path in recipe}
    bits = sum(size * (recipe[path].bits + 32 / recipe[path].group_size) for path, size in weights.items())
    return bits / sum(weights.values())


@pytest.mark.parametrize("target", [8.5, 6.0, 5.0, 4.0, 3.0])
def test_the_target_is_met_and_bits_go_where_they_are_needed(model: XLMRoberta, target: float) -> None:
    recipe = measured(model, target)
    assert set(recipe) == {WORDS, *layer_paths(0), *layer_paths(1), *layer_paths(2)}
    assert average_bits(model, recipe) <= target
    if target < 8:
        assert {recipe[path].bits for path in layer_paths(1)} == {2}  # zeros come back from any packing
    if 4 <= target < 8:
        assert recipe[layer_paths(0)[0]].bits >= 4


def test_embeddings_on_a_grid_cost_nothing(model: XLMRoberta) -> None:
    expected = np.concatenate([np.array(model(**batch)) for batch in BATCHES]).astype(np.float64)
    choices = choices_for(model, {WORDS: model.embeddings.word_embeddings}, BATCHES, expected, 16, words=True)
    errors = {(choice.packing.bits, choice.packing.group_size): choice.error for choice in choices}
    assert errors[4, 32] < 1e-10 < errors[5, 64] < errors[2, 64]
    assert [choice.size for choice in choices] == sorted((choice.size for choice in choices), reverse=True)


def test_the_model_is_left_as_it_was(model: XLMRoberta) -> None:
    before = dict(tree_flatten(model.parameters()))
    measured(model, 4.0)
    assert all(value is before[name] for name, value in tree_flatten(model.parameters()))


def test_what_a_large_last_step_leaves_over_is_spent() -> None:
    def options(*sizes_and_errors: tuple[float, float]) -> list[Choice]:
        return [Choice(Quantization(64, 8, "affine"), size, error) for size, error in sizes_and_errors]

    steep, flat = options((100, 0), (90, 0.5)), options((100, 0), (50, 0.6), (10, 0.7))
    assert [choice.size for choice in within_budget(150, [steep, flat])] == [100, 50]  # by way of 100 and 10
    assert [choice.size for choice in within_budget(149, [steep, flat])] == [100, 10]
    assert [choice.size for choice in within_budget(100, [steep, flat])] == [90, 10]


@pytest.mark.parametrize("target", [0, -1, float("nan"), float("inf")])
def test_targets_that_are_none(lopsided: Path, tmp_path: Path, target: float) -> None:
    with pytest.raises(InputError, match="a target is a number of bits a weight, such as"):
        convert(lopsided, tmp_path / "target", target_bits=target)


def test_rows_that_no_choice_divides(tmp_path: Path) -> None:
    config = TINY | {"hidden_size": 48}
    source = write_checkpoint(tmp_path / "narrow", config)
    with pytest.raises(InputError, match="rows 48 wide do not divide into groups of 32: use mode nvfp4"):
        convert(source, tmp_path / "target", target_bits=5)
    convert(source, tmp_path / "target", layers=Quantization(16, 4, "nvfp4"))


def test_a_damaged_model_is_not_measured(tmp_path: Path) -> None:
    tensors = random_tensors(TINY)
    tensors["roberta.encoder.layer.1.output.dense.bias"][:] = np.nan
    source = write_checkpoint(tmp_path / "damaged", tensors=tensors)
    with pytest.raises(NonFiniteScoreError, match="calibration pairs have a logit of NaN"):
        convert(source, tmp_path / "target", target_bits=5)
    assert not (tmp_path / "target").exists()


def test_a_target_below_what_packing_can_do(model: XLMRoberta) -> None:
    with pytest.raises(InputError, match=r"a target of 2 bits a weight cannot be met: the least is 2\.50"):
        measured(model, 2)


def test_a_measured_conversion_beats_a_uniform_one_of_the_same_size(lopsided: Path, tmp_path: Path) -> None:
    four = Quantization(64, 4, "affine")
    uniform = convert(lopsided, tmp_path / "uniform", layers=four, embeddings=four)
    measured = convert(lopsided, tmp_path / "measured", target_bits=4.5)
    pairs = [("what is a panda", "the bear is a panda"), ("bear", "the panda"), ("the", "what is an er")]
    expected = Reranker(lopsided, device="cpu").score(pairs, raw_scores=True)

    def distance(directory: Path) -> float:
        return float(np.abs(Reranker(directory, device="cpu").score(pairs, raw_scores=True) - expected).max())

    assert distance(measured) < distance(uniform)
    sizes = [(path / "model.safetensors").stat().st_size for path in (measured, uniform)]
    assert sizes[0] <= sizes[1] * 1.02
    assert "2 to" in (measured / "README.md").read_text()
    own = json.loads((measured / "config.json").read_text())["quantization"]
    assert {own["bits"], *(entry["bits"] for path, entry in own.items() if path in layer_paths(1))} >= {2}
