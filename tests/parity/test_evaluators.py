"""sentence-transformers' evaluators, which find of our CrossEncoder what they find of the original."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from sentence_transformers import CrossEncoder as Original
from sentence_transformers.base.evaluation import SequentialEvaluator
from sentence_transformers.cross_encoder import evaluation

from mlx_rerank import CrossEncoder

QUERIES = {"what do pandas eat?": "Pandas eat bamboo.", "where is Paris?": "Paris is in France."}
OTHERS = ["Tea is a drink.", "A bear sleeps.", "The rain falls.", "France is a country."]
PAIRS = [[query, text] for query in QUERIES for text in (*QUERIES.values(), *OTHERS)]
LABELS: list[Any] = [int(QUERIES[query] == text) for query, text in PAIRS]
SAMPLES = [{"query": query, "positive": [text], "documents": [*OTHERS[:2], text]} for query, text in QUERIES.items()]
NEGATIVE = [{"query": query, "positive": text, "negative": OTHERS} for query, text in QUERIES.items()]
GIVEN: dict[str, list[dict[str, Any]]] = {
    "CrossEncoderClassificationEvaluator": [{"sentence_pairs": PAIRS, "labels": LABELS}],
    "CrossEncoderCorrelationEvaluator": [{"sentence_pairs": PAIRS, "scores": LABELS}],
    "CrossEncoderRerankingEvaluator": [{"samples": SAMPLES, "name": "dev"}, {"samples": NEGATIVE}],
    "CrossEncoderNanoBEIREvaluator": [{"dataset_names": ["nq", "msmarco"]}],
}
OLD = {
    "CEBinaryAccuracyEvaluator": "Classification",
    "CEBinaryClassificationEvaluator": "Classification",
    "CEF1Evaluator": "Classification",
    "CESoftmaxAccuracyEvaluator": "Classification",
    "CECorrelationEvaluator": "Correlation",
    "CERerankingEvaluator": "Reranking",
}
GIVEN |= {name: GIVEN[f"CrossEncoder{kind}Evaluator"] for name, kind in OLD.items()}

pytestmark = pytest.mark.filterwarnings("ignore:.*has been (deprecated|renamed).*:DeprecationWarning")


def table(self: Any, subset: str, split: str, required_columns: list[str]) -> Dataset:
    """Return a part of a data set that would come from the hub."""
    texts = {"queries": list(QUERIES), "corpus": [*QUERIES.values(), *OTHERS]}
    if subset in texts:
        return Dataset.from_dict({"_id": [f"{subset[0]}{i}" for i in range(len(texts[subset]))], "text": texts[subset]})
    found = {"qrels": ("corpus-id", ["c0", "c1"]), "bm25": ("corpus-ids", [["c2", "c0", "c3"], ["c1", "c4", "c5"]])}
    name, values = found[subset]
    return Dataset.from_dict({"query-id": ["q0", "q1"], name: values})


@pytest.fixture(scope="module")
def models(mini_directory: Path) -> tuple[Original, CrossEncoder]:
    return Original(str(mini_directory), device="cpu"), CrossEncoder(str(mini_directory), device="cpu")


def test_no_evaluator_is_forgotten() -> None:
    assert set(GIVEN) == set(evaluation.__all__)


@pytest.mark.parametrize(("name", "given"), [(name, given) for name in GIVEN for given in GIVEN[name]])
def test_an_evaluator_finds_the_same(
    models: tuple[Original, CrossEncoder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    given: dict[str, Any],
) -> None:
    monkeypatch.setattr(evaluation.CrossEncoderNanoBEIREvaluator, "_load_dataset_subset_split", table)
    evaluator = getattr(evaluation, name)(**given)
    theirs, ours = (evaluator(model, str(tmp_path), epoch=1, steps=2) for model in models)
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert evaluator.primary_metric in ours
    cards: list[Any] = [model.model_card_data for model in models]
    kept = [card.eval_results_dict[evaluator] for card in cards]
    assert list(kept[0]) == list(kept[1])
    (written,) = {len(path.read_text().splitlines()) for path in tmp_path.glob("*.csv")}
    assert written == 3


def test_evaluators_in_a_row(models: tuple[Original, CrossEncoder], tmp_path: Path) -> None:
    some = [evaluation.CrossEncoderClassificationEvaluator(PAIRS, LABELS, name="a"),
            evaluation.CrossEncoderCorrelationEvaluator(PAIRS, LABELS, name="b")]  # fmt: skip
    theirs, ours = (model.evaluate(SequentialEvaluator(some), str(tmp_path / "new" / "place")) for model in models)
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_metrics_go_to_the_card_that_was_given(mini_directory: Path) -> None:
    card: Any = Original(str(mini_directory), device="cpu").model_card_data
    encoder: Any = CrossEncoder(str(mini_directory), device="cpu", model_card_data=card)
    evaluator = evaluation.CrossEncoderClassificationEvaluator(PAIRS, LABELS, name="dev")
    assert evaluator(encoder) == card.eval_results_dict[evaluator]
