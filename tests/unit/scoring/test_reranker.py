"""Reranker: scores, rankings, errors, and use from several threads."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import bounds
import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_rerank import RankedDocument, Reranker
from mlx_rerank.errors import (
    CheckpointNotFoundError,
    DeviceError,
    InputError,
    NonFiniteScoreError,
    UnsupportedModelError,
)
from mlx_rerank.models.mapping import sigmoid

pytestmark = pytest.mark.numeric

DOCUMENTS = ["the bear", "what is panda", "熊猫吃竹子", "", "a bear eats the panda", "the bear"]


def test_score_of_pairs(tiny_reranker: Reranker) -> None:
    scores = tiny_reranker.score([("panda", document) for document in DOCUMENTS])
    assert scores.dtype == np.float32
    assert scores.shape == (len(DOCUMENTS),)
    assert ((scores > 0) & (scores < 1)).all()
    assert len(np.unique(scores)) == len(DOCUMENTS) - 1  # "the bear" is there twice


def test_score_of_one_pair_is_a_float(tiny_reranker: Reranker) -> None:
    score = tiny_reranker.score("panda", "the bear")
    assert type(score) is float
    assert score == bounds.near(float(tiny_reranker.score([("panda", "the bear")])[0]))


def test_raw_scores_are_logits(tiny_reranker: Reranker) -> None:
    pairs = [("panda", document) for document in DOCUMENTS]
    np.testing.assert_allclose(
        tiny_reranker.score(pairs), sigmoid(tiny_reranker.score(pairs, raw_scores=True)), rtol=0, atol=bounds.SCORE
    )


def test_no_pairs(tiny_reranker: Reranker) -> None:
    assert tiny_reranker.score([]).shape == (0,)
    assert tiny_reranker.rank("panda", []) == []


def test_rank(tiny_reranker: Reranker) -> None:
    ranking = tiny_reranker.rank("panda", DOCUMENTS)
    scores = tiny_reranker.score([("panda", document) for document in DOCUMENTS])
    assert [result.index for result in ranking] == sorted(range(len(DOCUMENTS)), key=lambda i: (-scores[i], i))
    for result in ranking:
        assert isinstance(result, RankedDocument)
        assert result.document is DOCUMENTS[result.index]
        assert result.score == bounds.near(float(scores[result.index]))
        assert result.truncated_tokens == 0
    assert tiny_reranker.rank("panda", DOCUMENTS, top_n=2) == bounds.again(ranking[:2])
    assert tiny_reranker.rank("panda", DOCUMENTS, top_n=99) == bounds.again(ranking)
    first, second = (place for place, result in enumerate(ranking) if result.document == "the bear")
    assert ranking[first].index < ranking[second].index  # ties keep the caller's order


def test_rank_of_mappings_gives_them_back(tiny_reranker: Reranker) -> None:
    documents = [{"text": text, "id": i} for i, text in enumerate(DOCUMENTS)]
    copies = [dict(document) for document in documents]
    ranking = tiny_reranker.rank("panda", documents)
    assert documents == copies
    assert [result.document for result in ranking] == [documents[result.index] for result in ranking]


def test_raw_ranking_has_the_same_order(tiny_reranker: Reranker) -> None:
    raw = tiny_reranker.rank("panda", DOCUMENTS, raw_scores=True)
    bounds.apart([result.score for result in raw], raw=True)
    assert [result.index for result in raw] == [result.index for result in tiny_reranker.rank("panda", DOCUMENTS)]
    assert sigmoid(np.array([raw[0].score]))[0] == bounds.near(tiny_reranker.rank("panda", DOCUMENTS)[0].score)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=80)), max_size=8), st.randoms(use_true_random=False))
def test_any_order_and_company_gives_the_same_scores(
    tiny_reranker: Reranker, pairs: list[tuple[str, str]], random: Random
) -> None:
    together = tiny_reranker.score(pairs, raw_scores=True)
    shuffled = list(range(len(pairs)))
    random.shuffle(shuffled)
    again = tiny_reranker.score([pairs[i] for i in shuffled], raw_scores=True)
    np.testing.assert_allclose(again, together[shuffled], rtol=0, atol=bounds.TINY)
    for i, pair in enumerate(pairs):
        assert tiny_reranker.score(*pair, raw_scores=True) == pytest.approx(float(together[i]), rel=0, abs=bounds.TINY)


def test_small_budgets_change_nothing(tiny: Path, tiny_reranker: Reranker) -> None:
    pairs = [("panda", document * n) for n in range(1, 5) for document in DOCUMENTS]
    found = Reranker(tiny, token_budget=1).score(pairs)
    np.testing.assert_allclose(found, tiny_reranker.score(pairs), rtol=0, atol=bounds.SCORE)


def test_truncation_is_reported(tiny_reranker: Reranker, caplog: pytest.LogCaptureFixture) -> None:
    long = "the bear " * 100
    (result,) = tiny_reranker.rank("panda", [long])
    assert result.truncated_tokens > 100
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "mlx_rerank"):
        tiny_reranker.score([("panda", long), ("panda", "short")])
    assert f"1 of 2 pairs were cut to 64 tokens; {result.truncated_tokens} tokens were not read" in caplog.text


def test_max_length(tiny: Path, tiny_reranker: Reranker) -> None:
    assert tiny_reranker.max_length == 64  # the model's limit, which is less than 512
    assert Reranker(tiny, max_length=20).rank("panda", ["the bear " * 9])[0].truncated_tokens > 0


def test_the_same_pair_is_computed_once(tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    run = tiny_reranker.engine.run
    counted = lambda groups, stop: run((rows.extend(len(b[0]) for b in g) or g for g in groups), stop)  # noqa: E731
    monkeypatch.setattr(tiny_reranker.engine, "run", counted)
    scores = tiny_reranker.score([("panda", "bear"), ("panda", "the"), ("panda", "bear")] * 10)
    assert sum(rows) == 2
    assert len(np.unique(scores)) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dtype": "fp16"}, InputError, "'fp16' is not one of"),
        ({"device": "cuda"}, DeviceError, "'cuda' is not 'gpu' or 'cpu'"),
        ({"max_length": 65}, InputError, "max_length 65 exceeds this model's limit of 64 tokens"),
        ({"max_length": 4}, InputError, "max_length 4 leaves no room"),
        ({"max_length": 0}, InputError, "max_length 0 leaves no room"),
        ({"token_budget": 0}, InputError, "token_budget must be a whole number"),
        ({"token_budget": 64.5}, InputError, "token_budget must be a whole number of at least 1, not 64.5"),
        ({"max_length": "64"}, InputError, "max_length must be a whole number of at least 0, not '64'"),
    ],
)
def test_bad_arguments(tiny: Path, arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Reranker(tiny, **arguments)


def test_a_gpu_that_is_not_there(tiny: Path) -> None:
    import mlx.core as mx

    if mx.is_available(mx.Device(mx.gpu)):
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="no gpu that MLX can use"):
        Reranker(tiny, device="gpu")


def test_models_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for nothing in ("", None, 5):
        with pytest.raises(CheckpointNotFoundError, match=f"not {nothing!r}"):
            Reranker(nothing)  # pyright: ignore[reportArgumentType]
    for name in ("no-such-model", "./no/such", "/no/such/dir", str(tmp_path / "file"), "a/b/c"):
        with pytest.raises(CheckpointNotFoundError, match=name if "file" not in name else "is a file"):
            Reranker(name)


def test_another_model_is_refused_on_the_fly(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="an embedding model"):
        Reranker(write_checkpoint(tmp_path, TINY | {"architectures": ["XLMRobertaModel"]}))


@pytest.mark.parametrize("top_n", [0, -1, 1.5, "3", True])
def test_bad_top_n(tiny_reranker: Reranker, top_n: object) -> None:
    with pytest.raises(InputError, match="top_n must be a whole number of at least 1"):
        tiny_reranker.rank("panda", DOCUMENTS, top_n=top_n)  # pyright: ignore[reportArgumentType]


def test_threshold(tiny: Path, tiny_reranker: Reranker) -> None:
    exact = Reranker(tiny, deterministic=True)  # a score has to be the same bits to reach itself
    for raw in (False, True):
        ranking = exact.rank("panda", DOCUMENTS, raw_scores=raw)
        for place, result in enumerate(ranking):
            found = exact.rank("panda", DOCUMENTS, raw_scores=raw, threshold=result.score)
            assert found[: place + 1] == ranking[: place + 1]  # its own score is enough
            assert all(each.score == result.score for each in found[place:])
        third = ranking[2].score
        assert exact.rank("panda", DOCUMENTS, raw_scores=raw, threshold=third, top_n=2) == ranking[:2]
        assert exact.rank("panda", DOCUMENTS, raw_scores=raw, threshold=third, top_n=5) == ranking[:3]
    assert tiny_reranker.rank("panda", DOCUMENTS, raw_scores=True, threshold=1e9) == []
    assert tiny_reranker.rank("panda", DOCUMENTS, threshold=1) == []
    assert len(tiny_reranker.rank("panda", DOCUMENTS, threshold=0)) == len(DOCUMENTS)
    assert tiny_reranker.rank("panda", [], threshold=np.float32(0.5)) == []  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), -float("inf"), "0.5", True, [0.5]])
@pytest.mark.parametrize("raw", [False, True])
def test_bad_threshold(tiny_reranker: Reranker, threshold: object, raw: bool) -> None:
    with pytest.raises(InputError, match="threshold must be a finite number, or None, not"):
        tiny_reranker.rank("panda", DOCUMENTS, threshold=threshold, raw_scores=raw)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, -(10**400)])
def test_a_threshold_that_no_score_can_have(tiny_reranker: Reranker, threshold: float) -> None:
    with pytest.raises(InputError, match=r"is not in 0\.\.1, where scores are; a logit needs raw scores"):
        tiny_reranker.rank("panda", DOCUMENTS, threshold=threshold)


def test_inputs_of_the_wrong_kind(tiny_reranker: Reranker) -> None:
    class Table:
        columns = ("query", "document")

        def __iter__(self):
            return iter(self.columns)

    for wrong in ("the bear", {"text": "the bear"}, {"the", "bear"}, Table(), None, 7):
        with pytest.raises(InputError, match="documents must be a list, not a"):
            tiny_reranker.rank("panda", wrong)  # pyright: ignore[reportArgumentType]
        if not isinstance(wrong, str):
            with pytest.raises(InputError, match="pairs must be a list, not a"):
                tiny_reranker.score(wrong)  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(InputError, match=r"documents\[1\]"):
        tiny_reranker.rank("panda", ["fine", None])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="query must be a text, not NoneType"):
        tiny_reranker.rank(None, ["fine"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="a query and a document"):
        tiny_reranker.score("only one text")  # pyright: ignore[reportCallIssue, reportArgumentType]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_logits_name_the_pair(tmp_path: Path, bad: float) -> None:
    tensors = random_tensors(TINY)
    panda = 4  # the id of "▁panda", whose embedding is damaged: pairs without it are fine
    tensors["roberta.embeddings.word_embeddings.weight"][panda] = bad
    reranker = Reranker(write_checkpoint(tmp_path, tensors=tensors), dtype="float32")
    assert np.isfinite(reranker.score([("what", "bear")])).all()
    with pytest.raises(NonFiniteScoreError, match=r"1 of 3 pairs .* pair 1 \('what', 'panda'\).*try dtype='float32'"):
        reranker.score([("what", "bear"), ("what", "panda"), ("what", "the")])
    with pytest.raises(NonFiniteScoreError):
        reranker.rank("panda", ["the bear"])


def test_many_threads_at_once(tiny: Path, tiny_reranker: Reranker) -> None:
    other = Reranker(tiny, dtype="float16", device="cpu")
    batches = [
        [("panda", f"the bear number {n} {'is ' * (n % 7)}") for n in range(start, start + 20)] for start in range(12)
    ]
    expected = [tiny_reranker.score(batch) for batch in batches]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(tiny_reranker.score, batches))
        half = list(threads.map(other.score, batches))
        loaded = threads.submit(lambda: Reranker(tiny).score(batches[0])).result()  # a model made in another thread
    for i in range(len(batches)):
        np.testing.assert_allclose(found[i], expected[i], rtol=0, atol=bounds.SCORE)
        np.testing.assert_allclose(half[i], expected[i], atol=2e-2)
    np.testing.assert_allclose(loaded, expected[0], rtol=0, atol=bounds.SCORE)


def test_progress_bar(tiny_reranker: Reranker, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_reranker.score([("panda", "bear")], show_progress=True)
    assert "Scoring" in capsys.readouterr().err
    tiny_reranker.score([("panda", "bear")])
    tiny_reranker.score([("panda", "bear")], show_progress=False)
    assert capsys.readouterr().err == ""


def test_sigmoid_keeps_dtype_and_small_values() -> None:
    logits = np.array([-200, -30, -8.1875, 0, 8, 200], dtype=np.float32)
    with np.errstate(all="raise", under="ignore"):
        scores = sigmoid(logits)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[1:], 1 / (1 + np.exp(-logits[1:].astype(np.float64))), rtol=1e-5)
    assert scores[0] == 0
    assert (np.diff(scores) > 0).all() or scores[-1] == 1
