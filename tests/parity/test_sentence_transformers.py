"""CrossEncoder against sentence-transformers' own, on the same checkpoint and the same pairs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder as Original
from texts import LONG, PAIRS

from mlx_rerank import CrossEncoder
from mlx_rerank.pairs.limits import Limits

SHORT = [PAIRS[i] for i in (0, 1, 2, 3, 4, 7, 9, 18)]
SINGLE = PAIRS[1]
QUERY = "what does a panda eat?"
DOCUMENTS = [
    "bamboo",
    "Paris is old.",
    "Pandas eat bamboo.",
    "A bear.",
    "熊猫吃竹子。",
    "The rain in spring.",
    "Pandas sleep.",
]


@pytest.fixture(scope="module")
def original(mini_directory: Path) -> Original:
    return Original(str(mini_directory), device="cpu")


@pytest.fixture(scope="module")
def ours(mini_directory: Path) -> CrossEncoder:
    return CrossEncoder(str(mini_directory), device="cpu")


def assert_same(found: Any, expected: Any, bound: float = 1e-4) -> None:
    """Check types all the way down, dtypes, shapes, and that numbers differ by no more than a bound."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, bound)
    elif isinstance(expected, float | np.ndarray | np.generic | torch.Tensor):
        if not isinstance(expected, float):
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=bound, rtol=0)
    else:
        assert found == expected


@pytest.mark.parametrize("max_length", [512, 64, 33, 32, 6, 5])
def test_same_ids(original: Original, ours: CrossEncoder, max_length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Short texts, as the tokenizers library also makes every pair of what is left of both: two texts of 10,000 tokens
    # fill 16 GB where the limit is 64.
    pairs = [pair for pair in PAIRS if max(map(len, pair)) <= 10 * max_length]
    pairs += [(LONG[:query], LONG[:document]) for query, document in ((300, 300), (299, 350), (350, 299), (150, 500))]
    monkeypatch.setattr(original[0].tokenizer, "model_max_length", max_length)
    features = original.preprocess(pairs)
    encoded = ours.reranker.encoder.encode(pairs, Limits(max_length, longest_first=True))
    rows = zip(features["input_ids"], features["attention_mask"].bool(), strict=True)
    assert [encoded.sequences[place].ids.tolist() for place in encoded.inverse] == [
        ids[real].tolist() for ids, real in rows
    ]


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_same_logits(original: Original, ours: CrossEncoder) -> None:
    # What is left of two long texts is paired piece by piece there; and two of the four that are cut to 512 tokens do.
    pairs = [(query[:3000], document[:3000]) for query, document in [*PAIRS[:14], *PAIRS[15:21]]]
    found = ours.predict(pairs, activation_fn=torch.nn.Identity())
    expected = original.predict(pairs, activation_fn=torch.nn.Identity(), batch_size=4)
    assert_same(found, expected)
    difference = np.abs(found - expected).max()
    print(f"CrossEncoder, trained weights, float32: max |delta logit| {difference:.1e} over {len(found)} pairs")


def test_same_defaults(original: Original, ours: CrossEncoder) -> None:
    assert ours.max_seq_length == original.max_seq_length == 512
    assert ours.num_labels == original.num_labels
    assert (ours.prompts, ours.default_prompt_name) == (original.prompts, original.default_prompt_name)


@pytest.mark.parametrize("options", [{}, {"convert_to_numpy": False}, {"convert_to_tensor": True}], ids=str)
@pytest.mark.parametrize(
    "inputs",
    [SINGLE, list(SINGLE), np.array(SINGLE), [SINGLE], SHORT, tuple(SHORT), [list(each) for each in SHORT], []],
    ids=["tuple", "list", "array", "one in a list", "many", "tuple of many", "lists", "none"],
)
def test_same_types(original: Original, ours: CrossEncoder, inputs: Any, options: dict) -> None:
    assert_same(ours.predict(inputs, **options), original.predict(inputs, **options))


class Calibrated(torch.nn.Module):
    """An activation with a learned parameter, such as a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = torch.nn.Parameter(torch.tensor(2.5))

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits / self.temperature)


ACTIVATIONS = [
    None,
    torch.nn.Identity(),
    torch.nn.Sigmoid(),
    torch.nn.Softmax(dim=1),
    torch.sigmoid,
    torch.nn.functional.relu,
    Calibrated(),
    lambda logits: logits.sigmoid(),
    lambda logits: 1 / (1 + torch.exp(-logits)),
    lambda logits: logits * 2,
]


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_same_scores_with_an_activation(
    original: Original, ours: CrossEncoder, activation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = SHORT[:4]
    expected = original.predict(pairs, activation_fn=activation)
    assert_same(ours.predict(pairs, activation_fn=activation), expected)
    if activation:
        monkeypatch.setattr(ours, "activation_fn", activation)
        assert_same(ours.predict(pairs), expected)


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 1},
        {"batch_size": 2, "show_progress_bar": False},
        {"apply_softmax": True},
        {"prompt": "Answer this: "},
        {"prompt": ""},
    ],
    ids=str,
)
def test_same_scores_with_options(original: Original, ours: CrossEncoder, options: dict) -> None:
    assert_same(ours.predict(SHORT, **options), original.predict(SHORT, **options))


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 3},
        {"top_k": 100, "return_documents": True},
        {"top_k": 0},
        {"return_documents": True, "batch_size": 2},
        {"activation_fn": torch.nn.Identity()},
        {"prompt": "Answer this: ", "show_progress_bar": False},
    ],
    ids=str,
)
def test_same_rankings(original: Original, ours: CrossEncoder, options: dict) -> None:
    assert_same(ours.rank(QUERY, DOCUMENTS, **options), original.rank(QUERY, DOCUMENTS, **options))


def test_nothing_to_rank(original: Original, ours: CrossEncoder) -> None:
    assert ours.rank(QUERY, []) == original.rank(QUERY, []) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda encoder: encoder.predict(SHORT, batch_size=0),
        lambda encoder: encoder.predict(SHORT, prompt_name="unknown"),
        lambda encoder: encoder.rank(QUERY, DOCUMENTS, prompt_name="unknown"),
        lambda encoder: encoder.predict([("one", "two", "three")]),
        lambda encoder: encoder.predict([("one",)]),
    ],
)
def test_what_is_an_error_there_is_one_here(original: Original, ours: CrossEncoder, call: Any) -> None:
    for encoder in (original, ours):
        with pytest.raises(ValueError):  # noqa: PT011
            call(encoder)


def test_a_checkpoint_that_it_saved(mini_directory: Path, tmp_path: Path) -> None:
    prompts = {"ask": "Answer this: ", "none": ""}
    maker = Original(
        str(mini_directory),
        device="cpu",
        max_length=40,
        activation_fn=torch.nn.Identity(),
        prompts=prompts,
        default_prompt_name="ask",
    )
    maker.save_pretrained(str(tmp_path))
    reloaded, ours = (kind(str(tmp_path), device="cpu") for kind in (Original, CrossEncoder))
    assert (ours.max_seq_length, ours.prompts, ours.default_prompt_name) == (40, prompts, "ask")
    assert_same(ours.predict(SHORT), reloaded.predict(SHORT))
    assert_same(ours.rank(QUERY, DOCUMENTS, prompt_name="none"), reloaded.rank(QUERY, DOCUMENTS, prompt_name="none"))


@pytest.mark.parametrize("version", [3, 4])
def test_checkpoints_of_earlier_versions(mini_directory: Path, tmp_path: Path, version: int) -> None:
    path = "torch.nn.modules.linear.Identity"
    entry = (
        {"sbert_ce_default_activation_function": path}
        if version < 4
        else {"sentence_transformers": {"activation_fn": path}}
    )
    for each in mini_directory.iterdir():
        (tmp_path / each.name).symlink_to(each)
    config = json.loads((mini_directory / "config.json").read_text()) | entry
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    found, expected = (kind(str(tmp_path), device="cpu").predict(SHORT) for kind in (CrossEncoder, Original))
    assert expected.min() < 0
    assert_same(found, expected)
