"""Hard negatives: what BM25 finds, what the model likes, and never what is known to be relevant."""

import sys
from collections.abc import Sequence

import numpy as np
import pytest

from mlx_rerank.errors import InputError, MissingDependencyError
from mlx_rerank.train import Example
from mlx_rerank.train.negatives import MINED, bm25, mine, terms

SPACED = [
    "The giant panda eats bamboo.",
    "A grizzly bear catches salmon.",
    "Der Bär frisst Lachs im Fluss.",
    "медведь ест рыбу в реке",
    "Tea is grown in hills.",
]
UNSPACED = ["大熊猫吃竹子。", "北京奥运会在2008年举行。", "パンダは竹を食べる", "แพนด้ากินไผ่", "茶树长在山上"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Panda's tea, 2nd cup!", ["the", "panda", "s", "tea", "2nd", "cup"]),
        ("Bär", ["bär"]),
        ("大熊猫", ["大熊", "熊猫"]),
        ("猫", ["猫"]),
        ("2008年北京", ["2008", "年北", "北京"]),
        ("AI是什么", ["ai", "是什", "什么"]),
        ("人々", ["人々"]),
        ("GPUカード", ["gpu", "カー", "ード"]),
        ("?!", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@pytest.mark.parametrize(
    ("query", "documents", "best"),
    [
        ("what does a panda eat, bamboo?", SPACED, 0),
        ("Bear and SALMON", SPACED, 1),
        ("Lachs im Fluss", SPACED, 2),
        ("рыбу ест", SPACED, 3),
        ("熊猫吃什么", UNSPACED, 0),
        ("2008年奥运会", UNSPACED, 1),
        ("竹を食べる動物", UNSPACED, 2),
        ("แพนด้า", UNSPACED, 3),
        ("山上的茶", UNSPACED, 4),
    ],
)
def test_bm25_finds(query: str, documents: list[str], best: int) -> None:
    ((first, *_),) = bm25([query], documents, 3)
    assert first == best


def test_bm25_without_shared_words() -> None:
    assert bm25(["zebra", "?!", ""], SPACED, 5) == [[], [], []]
    assert bm25(["panda"], ["?!", ""], 5) == [[]]
    assert bm25(["panda"], ["the panda"], 50) == [[0]]
    assert bm25(["bear salmon"], ["bear", "tea", "salmon bear", "bear tea"], 2)[0][0] == 2


def example(query: str, positive: str, *negatives: str) -> Example:
    return Example(query, (positive, *negatives), (1.0,) + (0.0,) * len(negatives))


def test_mined_from_other_queries_and_the_corpus() -> None:
    examples = [example("panda bamboo", "panda eats bamboo", "bamboo tea"), example("bear", "bear and panda")]
    found = mine(examples, ["bamboo grows", "the sea"])
    assert found[0].documents[:2] == examples[0].documents
    assert set(found[0].documents[2:]) == {"bear and panda", "bamboo grows"}
    assert found[0].labels == (1.0, 0.0, 0.0, 0.0)
    assert found[1].documents == ("bear and panda",)  # nothing else has a bear
    assert found[1] == examples[1]
    assert examples[0] == example("panda bamboo", "panda eats bamboo", "bamboo tea")


def test_documents_of_the_same_query_on_another_line_are_no_negatives() -> None:
    examples = [example("panda", "panda one", "sea"), example("panda", "panda two"), example("bear", "panda three")]
    for found in mine(examples, [])[:2]:
        assert set(found.documents[1:]) - {"sea"} == {"panda three"}


def test_at_most_so_many_and_the_best_ones() -> None:
    documents = ["the panda itself", *(f"panda {'bear ' * i}{i}" for i in range(40))]
    (found,) = mine([example("panda", documents[0])], documents[1:])
    best = [documents[i] for i in bm25(["panda"], documents, MINED + 1)[0] if i]
    assert found.documents == (documents[0], *best[:MINED])


def test_a_teacher_has_not_scored_them() -> None:
    taught = Example("panda", ("a panda",), (1.0,), (3.0,))
    alone = Example("zebra", ("a zebra",), (1.0,), (2.0,))
    found = mine([taught, alone], ["panda tea"])
    assert found[0].teacher is None
    assert found[1] == alone


def test_what_the_model_likes() -> None:
    logits = {"panda 0": 2.0, "panda 1": 1.9, "panda 2": 0.0, "panda 3": 1.0, "panda 4": 5.0}
    asked: list[Example] = []

    def score(examples: Sequence[Example]) -> list[np.ndarray]:
        asked.extend(examples)
        return [np.array([logits[text] for text in e.documents], dtype=np.float32) for e in examples]

    examples = [Example("panda", ("tea", "panda 0"), (0.0, 1.0)), example("zebra", "panda 4")]
    found = mine(examples, ["panda 1", "panda 2", "panda 3"], score=score)
    # sigmoid(1.9) is above 95 % of sigmoid(2), and panda 4 far above: they are probably relevant
    assert found[0].documents == ("tea", "panda 0", "panda 3", "panda 2")
    assert found[1] == examples[1]
    assert [e.query for e in asked] == ["panda"]
    assert asked[0].documents[0] == "panda 0"


def test_without_a_positive_all_may_be_negatives() -> None:
    def score(examples: Sequence[Example]) -> list[np.ndarray]:
        return [np.arange(len(e.documents), dtype=np.float32) for e in examples]

    (found,) = mine([Example("panda", ("sea",), (0.0,))], ["panda one", "panda two"], score=score)
    assert sorted(found.documents) == ["panda one", "panda two", "sea"]


def test_nothing_to_choose_from() -> None:
    with pytest.raises(InputError, match="among 1 documents BM25 finds no negatives: name more with a corpus"):
        mine([example("panda", "a panda")], [])


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "bm25s" else sys)
    with pytest.raises(MissingDependencyError, match=r"hard negatives need bm25s: pip install 'mlx-rerank\[train\]'"):
        mine([example("panda", "a panda")], [])
