"""FlagReranker against FlagEmbedding's own, on the same checkpoint and the same pairs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from FlagEmbedding import FlagReranker as Original
from texts import PAIRS

from mlx_rerank import FlagReranker
from mlx_rerank.pairs.limits import Limits

# Under transformers 5, FlagEmbedding decodes its truncated ids to text and tokenises that again. An empty passage is
# then taken for none at all, and a piece outside the vocabulary comes back as another number of unknown tokens.
RETOKENISED = {("", ""), ("only a query", ""), (" ", "\n\t "), ("𝕎𝕙𝕒𝕥", "\U0001f9ff rare: ꙮ 𓀀")}
AFFECTED = RETOKENISED if int(transformers.__version__.split(".")[0]) >= 5 else set()
UNAFFECTED = [pair for pair in PAIRS if pair not in AFFECTED]


@pytest.fixture(scope="module")
def original(mini_directory: Path) -> Original:
    reranker = Original(str(mini_directory), devices="cpu")
    reranker.model.float()
    return reranker


@pytest.fixture(scope="module")
def ours(mini_directory: Path) -> FlagReranker:
    return FlagReranker(str(mini_directory), devices="cpu")


def scores_of(original: Original, pairs: list, **arguments: Any) -> np.ndarray:
    """Return what FlagEmbedding's compute_score gives."""
    scores = original.compute_score(pairs, **arguments)
    assert scores is not None
    return np.array(scores)


def original_ids(original: Original, query: str, passage: str, max_length: int = 512) -> list[int]:
    """Return the ids that FlagEmbedding gives its model for a pair."""
    from FlagEmbedding.utils.tokenizer_compat import prepare_for_model_compat

    cut = {"add_special_tokens": False, "truncation": True}
    q = original.tokenizer(query, max_length=max_length * 3 // 4, **cut)["input_ids"]
    p = original.tokenizer(passage, max_length=max_length, **cut)["input_ids"]
    joined = prepare_for_model_compat(
        original.tokenizer, q, p, truncation="only_second", max_length=max_length, padding=False
    )
    return joined["input_ids"]


def test_same_ids_except_where_it_tokenises_again(original: Original, ours: FlagReranker) -> None:
    encoded = ours.reranker.encoder.encode(PAIRS, Limits(512))
    differing = {
        pair
        for pair, place in zip(PAIRS, encoded.inverse, strict=True)
        if encoded.sequences[place].ids.tolist() != original_ids(original, *pair)
    }
    assert differing == AFFECTED


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_same_scores(original: Original, ours: FlagReranker) -> None:
    others = [PAIRS[i] for i in (14, 15, 21)]  # cut to 512 tokens as one that stays is; their ids are compared above
    pairs = [pair for pair in UNAFFECTED if pair not in others]
    found = ours.compute_score(pairs)
    expected = scores_of(original, pairs, batch_size=4)
    assert isinstance(found, list)
    assert all(type(score) is float for score in found)
    difference = np.abs(np.array(found) - expected).max()
    print(f"FlagEmbedding, trained weights, float32: max |delta logit| {difference:.1e} over {len(found)} pairs")
    assert difference <= 1e-4


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    "pairs",
    [
        [PAIRS[1]],
        [list(PAIRS[1])],
        [PAIRS[i] for i in (0, 1, 3, 7, 9)],
        [list(PAIRS[i]) for i in (0, 1, 3, 7, 9)],
        [PAIRS[1]] * 3,
    ],
    ids=["one tuple", "one list", "tuples", "lists", "equal ones"],
)
def test_same_types(original: Original, ours: FlagReranker, pairs: list, normalize: bool) -> None:
    found = ours.compute_score(pairs, normalize=normalize)
    expected: Any = original.compute_score(pairs, normalize=normalize)
    assert isinstance(found, list)
    assert type(found) is type(expected)
    assert [type(score) for score in found] == [type(score) for score in expected] == [float] * len(pairs)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize("pair", [PAIRS[1], list(PAIRS[1])], ids=["tuple", "list"])
def test_one_pair_has_a_score_and_not_a_list_of_one(original: Original, ours: FlagReranker, pair: Any) -> None:
    for normalize in (False, True):
        found = ours.compute_score(pair, normalize=normalize)
        assert type(found) is float  # as FlagEmbedding's own examples print it
        np.testing.assert_allclose([found], scores_of(original, pair, normalize=normalize), atol=1e-4, rtol=0)


def test_no_pairs(original: Original, ours: FlagReranker) -> None:
    assert ours.compute_score([]) == []
    with pytest.raises(IndexError):
        original.compute_score([])


@pytest.mark.numeric
@pytest.mark.one_kernel
def test_same_scores_of_the_base_shape(base_directory: Path) -> None:
    original = Original(str(base_directory), devices="cpu")
    original.model.float()
    pairs = [PAIRS[i] for i in (0, 1, 6, 7, 9, 16)]
    found = FlagReranker(str(base_directory), devices="cpu").compute_score(pairs)
    difference = np.abs(np.array(found) - scores_of(original, pairs, batch_size=1)).max()
    print(f"FlagEmbedding, base shape, float32: max |delta logit| {difference:.1e} over {len(pairs)} pairs")
    assert difference <= 1e-4


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize(
    "arguments",
    [
        {"normalize": True},
        {"max_length": 32},
        {"max_length": 64, "query_max_length": 8},
        {"batch_size": 2},
    ],
    ids=str,
)
def test_same_scores_with_arguments(original: Original, ours: FlagReranker, arguments: dict) -> None:
    pairs = [PAIRS[i] for i in (0, 1, 7, 9, 10, 18)]
    np.testing.assert_allclose(
        ours.compute_score(pairs, **arguments), scores_of(original, pairs, **arguments), atol=1e-4, rtol=0
    )


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_same_scores_with_instructions(mini_directory: Path) -> None:
    instructions = {
        "query_instruction_for_rerank": "Find the passage that answers:",
        "query_instruction_format": "{}\\n{}",
        "passage_instruction_for_rerank": "Passage",
        "passage_instruction_format": "{}: {}",
        "normalize": True,
    }
    original = Original(str(mini_directory), devices="cpu", **instructions)
    original.model.float()
    ours = FlagReranker(str(mini_directory), devices="cpu", **instructions)
    pairs = [PAIRS[i] for i in (0, 1, 7)]
    np.testing.assert_allclose(ours.compute_score(pairs), scores_of(original, pairs), atol=1e-5, rtol=0)
