"""Two models in a row: what is kept, whose scores come back, and what errors say and hold."""

import threading
import time
from pathlib import Path

import bounds
import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from devices import busy_device, slowed

from mlx_rerank import FlagReranker, Reranker
from mlx_rerank.errors import CancelledError, CheckpointNotFoundError, DeadlineError, InputError, NonFiniteScoreError

pytestmark = [pytest.mark.numeric, pytest.mark.anyio]
DOCUMENTS = ["the bear " * (i % 5) + f"panda eats {i}" for i in range(40)]
PAIRS = [("panda", document) for document in DOCUMENTS]
KEEP = 8


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that ranks otherwise than the tiny one."""
    return write_checkpoint(tmp_path_factory.mktemp("fast"), tensors=random_tensors(TINY, seed=1))


@pytest.fixture(scope="module")
def fast_reranker(fast: Path) -> Reranker:
    return Reranker(fast)


@pytest.fixture
def cascade(tiny: Path, fast_reranker: Reranker) -> Reranker:
    return Reranker(tiny, first_stage=fast_reranker, keep=KEEP)


def best(reranker: Reranker, keep: int = KEEP) -> list[int]:
    return [result.index for result in reranker.rank("panda", DOCUMENTS, top_n=keep)]


def test_the_best_of_one_model_as_the_other_ranks_them(
    cascade: Reranker, tiny_reranker: Reranker, fast_reranker: Reranker
) -> None:
    found = cascade.rank("panda", DOCUMENTS)
    kept, all_ranked = best(fast_reranker), tiny_reranker.rank("panda", DOCUMENTS)
    expected = [result for result in all_ranked if result.index in kept]
    bounds.apart([result.score for result in expected])
    assert [result.index for result in found] == [result.index for result in expected]
    assert set(kept) != set(best(tiny_reranker))  # else nothing is tested
    assert [result.score for result in found] == pytest.approx([result.score for result in expected], abs=1e-5)
    assert all(result.document is DOCUMENTS[result.index] for result in found)
    assert [result.span for result in found] == [result.span for result in expected]


async def test_the_same_awaited(cascade: Reranker) -> None:
    wanted = {"top_n": 3, "threshold": -5.0, "raw_scores": True}
    assert await cascade.arank("panda", DOCUMENTS, **wanted) == bounds.again(
        cascade.rank("panda", DOCUMENTS, **wanted), raw=True
    )


def test_equal_documents_keep_the_order_given(cascade: Reranker) -> None:
    documents = ["the bear"] * 30
    assert [result.index for result in cascade.rank("panda", documents)] == list(range(KEEP))


def test_each_model_reads_only_its_part(tiny: Path, fast: Path) -> None:
    cascade = Reranker(tiny, first_stage=fast, keep=KEEP)
    strong, first = cascade.engines
    found = cascade.rank("panda", DOCUMENTS)
    tokens = dict(zip(DOCUMENTS, _tokens(cascade), strict=True))
    assert first.tokens == sum(tokens.values())
    assert strong.tokens == sum(tokens[DOCUMENTS[result.index]] for result in found)

    before = first.tokens
    assert len(cascade.rank("panda", DOCUMENTS[:KEEP])) == KEEP  # no more than are kept
    cascade.score(PAIRS)
    cascade.logits(PAIRS)
    list(cascade.score_stream(PAIRS))
    cascade.explain("panda", "the bear")
    assert first.tokens == before


def _tokens(reranker: Reranker) -> list[int]:
    return reranker.encoder.encode(PAIRS, reranker.limits).tokens.tolist()


def test_what_is_unread_is_the_strong_models(tiny: Path, fast: Path) -> None:
    cascade = Reranker(tiny, first_stage=Reranker(fast, max_length=12), keep=1)
    (found,) = cascade.rank("panda", ["the bear " * 9, "the bear " * 8])
    assert found.truncated_tokens == 0
    assert found.span == (0, len(found.document))


def test_what_the_first_stage_does_not_read_is_logged(tiny: Path, fast: Path, caplog: pytest.LogCaptureFixture) -> None:
    cascade = Reranker(tiny, first_stage=Reranker(fast, max_length=12), keep=1)
    cascade.rank("panda", ["the bear " * 9, "the bear"])
    assert "1 of 2 pairs were cut to 12 tokens" in caplog.text


def test_a_first_stage_with_too_few_positions(tmp_path: Path, tiny: Path, fast: Path) -> None:
    longer = write_checkpoint(tmp_path / "longer", TINY | {"max_position_embeddings": 202})
    short = write_checkpoint(tmp_path / "short", TINY | {"max_position_embeddings": 52})
    with pytest.raises(
        InputError, match=r"^first_stage '.*short': max_length 50 .*; or give a Reranker that was loaded"
    ):
        Reranker(longer, first_stage=short, keep=2, max_length=150, long_documents="windows")


def test_twenty_are_kept_unless_told_otherwise(tiny: Path, fast_reranker: Reranker) -> None:
    cascade = Reranker(tiny, first_stage=fast_reranker)
    assert len(cascade.rank("panda", DOCUMENTS)) == 20


def test_a_name_is_loaded_as_the_model_is(tmp_path: Path, fast: Path) -> None:
    longer = write_checkpoint(tmp_path / "longer", TINY | {"max_position_embeddings": 102})
    options = {
        "dtype": "bfloat16", "device": "cpu", "long_documents": "windows", "token_budget": 512, "deterministic": True,
        "embeddings": "mapped", "score_cache": tmp_path / "scores",
    }  # fmt: skip
    cascade = Reranker(longer, first_stage=fast, keep=2, max_length=100, **options)
    assert cascade.first_stage is not None
    first_model = cascade.first_stage.model
    assert (cascade.max_length, first_model.limits.max_length) == (100, 64)
    assert first_model.limits.long_documents == cascade.limits.long_documents
    for name in ("dtype", "device", "token_budget", "deterministic"):
        assert getattr(first_model, name) == options[name] == getattr(cascade, name)
    assert [engine.embeddings for engine in cascade.engines] == ["mapped", "mapped"]
    shorter = Reranker(longer, first_stage=fast, max_length=20).first_stage
    assert shorter is not None
    assert shorter.model.limits.max_length == 20

    first = cascade.rank("panda", DOCUMENTS)
    read = [engine.tokens for engine in cascade.engines]
    assert cascade.rank("panda", DOCUMENTS) == first
    assert [engine.tokens for engine in cascade.engines] == read  # the score cache knew them all, of both models


def test_a_reranker_is_taken_as_it_is(tiny: Path, fast: Path) -> None:
    first = Reranker(fast, max_length=20)
    cascade = Reranker(tiny, first_stage=first, keep=2, max_length=30)
    assert cascade.first_stage is not None
    assert cascade.first_stage.model is first.model


def test_unloading_frees_both(cascade: Reranker, fast_reranker: Reranker) -> None:
    expected = cascade.rank("panda", DOCUMENTS)
    cascade.unload()
    assert not any(engine.loaded for engine in cascade.engines)
    assert not cascade.loaded
    fast_reranker.score("panda", "bear")
    assert cascade.loaded
    assert cascade.rank("panda", DOCUMENTS) == bounds.again(expected)


def test_bad_arguments(tiny: Path, cascade: Reranker) -> None:
    for keep in (0, -1, 1.5, "3", True):
        with pytest.raises(InputError, match="keep must be a whole number of at least 1, not"):
            Reranker(tiny, first_stage=tiny, keep=keep)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="keep=3 needs a first stage: name its model with first_stage"):
        Reranker(tiny, keep=3)
    with pytest.raises(InputError, match="first_stage has a first stage itself"):
        Reranker(tiny, first_stage=cascade)
    with pytest.raises(InputError, match="max_length must be a whole number of at least 0, not '7'"):
        Reranker(tiny, first_stage=tiny, max_length="7")  # pyright: ignore[reportArgumentType]
    for nothing in ("no-such-model", ""):
        with pytest.raises(CheckpointNotFoundError):
            Reranker(tiny, first_stage=nothing)
    for wrong in (5, Reranker, FlagReranker(str(tiny))):
        with pytest.raises(InputError, match=r"a name, a directory or a Reranker, not a (int|type|FlagReranker): "):
            Reranker(tiny, first_stage=wrong)  # pyright: ignore[reportArgumentType]
    assert len(cascade.rank("panda", DOCUMENTS, top_n=KEEP)) == KEEP
    for documents in (DOCUMENTS, DOCUMENTS[:2]):
        with pytest.raises(InputError, match=f"top_n {KEEP + 1} is more than the {KEEP} documents that the first"):
            cascade.rank("panda", documents, top_n=KEEP + 1)


def test_a_deadline_in_the_first_stage(cascade: Reranker, fast_reranker: Reranker, monkeypatch) -> None:
    slowed(fast_reranker, monkeypatch)
    with pytest.raises(DeadlineError, match=r"^in the first stage: \d+ of 40 pairs were scored in 0.2 s") as caught:
        cascade.rank("panda", DOCUMENTS, timeout=0.2)
    error = caught.value
    for held in (error.indices, error.logits, error.truncated_tokens, error.spans):
        assert len(held) == 0  # as there are only scores of another model


def test_a_deadline_in_the_second_stage(
    tiny: Path, fast_reranker: Reranker, tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    cascade = Reranker(tiny, first_stage=fast_reranker, keep=30)
    slowed(cascade, monkeypatch)
    said = r"^in the second stage, of 30 documents kept: \d+ of 30 pairs were scored in 0.4 s"
    with pytest.raises(DeadlineError, match=said) as caught:
        cascade.rank("panda", DOCUMENTS, timeout=0.4)
    error = caught.value
    assert 0 < len(error.indices) < 30
    assert set(error.indices.tolist()) < set(best(fast_reranker, 30))
    expected = tiny_reranker.logits(PAIRS)
    np.testing.assert_allclose(error.logits, expected.logits[error.indices], atol=1e-5)
    np.testing.assert_array_equal(error.spans, expected.spans[error.indices])
    np.testing.assert_array_equal(error.truncated_tokens, expected.truncated_tokens[error.indices])


def test_one_clock_for_both_stages(tiny: Path, fast_reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    cascade = Reranker(tiny, first_stage=fast_reranker, keep=19)
    slowed(cascade, monkeypatch)
    slowed(fast_reranker, monkeypatch)
    with pytest.raises(DeadlineError):
        cascade.rank("panda", DOCUMENTS[:20], timeout=0.6)  # each takes 0.4 s


def test_an_event_set_by_another_thread(cascade: Reranker) -> None:
    cancel = threading.Event()
    with busy_device():
        timer = threading.Timer(0.1, cancel.set)
        timer.start()
        start = time.monotonic()
        with pytest.raises(CancelledError, match=r"^in the first stage: 0 of 40 pairs were scored when cancel"):
            cascade.rank("panda", DOCUMENTS, cancel=cancel)
        assert time.monotonic() - start < 2
        timer.join()


def test_errors_name_their_stage(tmp_path: Path, tiny: Path) -> None:
    tensors = random_tensors(TINY)
    tensors["roberta.embeddings.word_embeddings.weight"][4] = np.nan  # of "▁panda"
    damaged = write_checkpoint(tmp_path, tensors=tensors)
    with pytest.raises(NonFiniteScoreError, match=r"^in the first stage: 3 of 3 pairs .*try dtype='float32'$"):
        Reranker(tiny, first_stage=damaged, keep=2, dtype="float32").rank("panda", ["a", "the", "bear"])
    with pytest.raises(NonFiniteScoreError, match=r"^in the second stage, of 2 documents kept: 2 of 2 pairs"):
        Reranker(damaged, first_stage=tiny, keep=2, dtype="float32").rank("panda", ["a", "the", "bear"])
    kept = r"^in the second stage, of 2 documents kept: .* \(Pairs are counted among those kept\)$"
    with pytest.raises(NonFiniteScoreError, match=kept):
        Reranker(damaged, first_stage=tiny, keep=2, dtype="float32").rank("bear", ["the panda"] * 3)
    refusing = Reranker(tiny, first_stage=Reranker(tiny), keep=1, long_documents="error")
    with pytest.raises(
        InputError, match=r"^in the second stage, of 1 documents kept: the pair \('panda', 'the bear"
    ) as caught:
        refusing.rank("panda", ["the bear " * 99, "the bear " * 98])
    assert "counted" not in str(caught.value)  # it counts no pairs
    with pytest.raises(InputError, match=r"documents\[1\] must be a text"):
        refusing.rank("panda", ["fine", None])  # pyright: ignore[reportArgumentType]
