"""nDCG@10 against the field's own implementation."""

from itertools import permutations

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import Qrel, ScoredDoc, nDCG
from training_data import make_examples, make_run

from mlx_rerank.train import Example
from mlx_rerank.train.evaluation import mean_ndcg


def example(labels: list[float]) -> Example:
    return Example("q", tuple(map(str, range(len(labels)))), tuple(labels))


@pytest.mark.parametrize("seed", range(5))
def test_against_ir_measures(seed: int) -> None:
    random = np.random.default_rng(seed)
    examples, logits, qrels, run = [], [], [], []
    for q in range(20):
        n = int(random.integers(1, 40))
        grades = random.integers(0, 4, n) if q else np.zeros(n, dtype=int)
        grades[0] = max(grades[0], int(q > 0))  # the first query alone has nothing relevant
        scores = random.permutation(n) * 0.5 - 3
        examples.append(example([grade / 3 for grade in grades]))
        logits.append(scores.astype(np.float32))
        if q:
            qrels += [Qrel(str(q), str(i), int(grade)) for i, grade in enumerate(grades)]
            run += [ScoredDoc(str(q), str(i), float(score)) for i, score in enumerate(scores)]
    expected = ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10]
    assert mean_ndcg(examples, logits) == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=5), st.data())
def test_equal_scores_earn_nothing(labels: list[float], data: st.DataObject) -> None:
    if max(labels) == 0:
        labels[0] = 1.0
    scores = data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=len(labels), max_size=len(labels)))
    found = mean_ndcg([example(labels)], [np.array(scores, dtype=np.float32)])
    apart = 1e-3 * np.array(list(permutations(range(len(labels)))))
    worst = min(mean_ndcg([example(labels)], [np.array(scores) + own]) for own in apart)
    assert found == pytest.approx(worst)


def test_no_query_has_anything_relevant() -> None:
    assert np.isnan(mean_ndcg([example([0.0, 0.0])], [np.zeros(2, dtype=np.float32)]))


@pytest.mark.numeric
def test_logits_are_those_of_each_pair(tiny_reranker, tiny) -> None:
    examples = make_examples(7, 5)
    run = make_run(tiny, token_budget=90)
    for own, logits in zip(examples, run.logits(examples), strict=True):
        expected = tiny_reranker.logits([(own.query, text) for text in own.documents]).logits
        np.testing.assert_allclose(logits, expected, atol=1e-5)
