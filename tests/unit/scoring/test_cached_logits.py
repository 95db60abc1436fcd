"""Cached logits: hits and misses, what a key depends on, and what is kept of a call that fails or stops."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import bounds
import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from score_caches import key

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.errors import CancelledError, NonFiniteScoreError
from mlx_rerank.models.mapping import SIGMOID
from mlx_rerank.pairs.batching import Batch
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.windows import Windows
from mlx_rerank.scoring.cached_logits import CachedLogits, Computation, keys
from mlx_rerank.scoring.score_cache import CachedScore, ScoreCache

PAIRS = [("panda", "the bear"), ("panda", "what is panda"), ("panda", "the bear"), ("", "熊猫吃竹子 " * 30)]
COMPUTATION = Computation("0" * 64, "float32", "cpu", deterministic=False)


def counting(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of pairs each time some are encoded."""
    counts: list[int] = []
    encode = reranker.encoder.encode
    monkeypatch.setattr(
        reranker.encoder, "encode", lambda pairs, *rest: counts.append(len(pairs)) or encode(pairs, *rest)
    )
    return counts


@pytest.mark.numeric
def test_a_hit_is_neither_encoded_nor_changed_by_a_bit(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Reranker(tiny).logits(PAIRS)
    reranker = Reranker(tiny, score_cache=tmp_path / "made" / "scores.db")
    counts = counting(reranker, monkeypatch)
    first, second = reranker.logits(PAIRS), reranker.logits(PAIRS[::-1])
    assert counts == [3]  # each distinct pair once, and none the second time
    np.testing.assert_allclose(first.logits, plain.logits, rtol=0, atol=bounds.COMPANY)
    np.testing.assert_array_equal(second.logits[::-1], first.logits)
    np.testing.assert_array_equal(second.truncated_tokens[::-1], plain.truncated_tokens)
    assert plain.truncated_tokens[3] > 0
    assert (first.logits.dtype, first.truncated_tokens.dtype) == (np.float32, np.int64)
    reranker.logits([*PAIRS, ("panda", "new")])
    assert counts == [3, 1]
    assert reranker.logits([]).logits.shape == (0,)


@pytest.mark.parametrize(
    "other", [{"dtype": "float16"}, {"max_length": 20}, {"deterministic": True}], ids=lambda it: next(iter(it))
)
def test_other_settings_miss(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict) -> None:
    Reranker(tiny, score_cache=tmp_path / "scores.db").logits(PAIRS)
    reranker = Reranker(tiny, score_cache=tmp_path / "scores.db", **other)
    counts = counting(reranker, monkeypatch)
    reranker.logits(PAIRS)
    reranker.logits(PAIRS, limits=replace(reranker.limits, query_max_length=3))
    assert counts == [3, 3]


@pytest.mark.numeric
def test_another_model_misses(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = write_checkpoint(tmp_path / "other", tensors=random_tensors(TINY, seed=1))
    Reranker(tiny, score_cache=tmp_path / "scores.db").logits(PAIRS)
    reranker = Reranker(other, score_cache=tmp_path / "scores.db")
    counts = counting(reranker, monkeypatch)
    expected = Reranker(other).logits(PAIRS).logits
    np.testing.assert_allclose(reranker.logits(PAIRS).logits, expected, rtol=0, atol=bounds.COMPANY)
    assert counts == [3]


def test_numpys_integers_are_whole_numbers() -> None:
    numbers: list[Any] = [np.int32(32), np.uint8(8), np.int64(2)]
    lengths: list[Any] = [np.int64(64), np.int16(9), np.int32(20)]
    given = Limits(*[*lengths, Windows(*numbers)])
    plain = Limits(64, 9, 20, Windows(32, 8, 2))
    assert keys(COMPUTATION, given, [("a", "b")]) == keys(COMPUTATION, plain, [("a", "b")])


@pytest.mark.numeric
def test_a_reranker_with_numpys_integers_uses_its_cache(tiny: Path, tmp_path: Path) -> None:
    numbers: dict[str, Any] = {"max_length": np.int64(40), "token_budget": np.int32(200)}
    reranker = Reranker(tiny, score_cache=tmp_path / "scores.db", **numbers)
    assert [type(reranker.max_length), type(reranker.token_budget)] == [int, int]
    given = reranker.score(PAIRS)
    expected = Reranker(tiny, score_cache=tmp_path / "scores.db", max_length=40).score(PAIRS)
    np.testing.assert_array_equal(given, expected)


def test_keys_depend_on_everything_and_on_nothing_else() -> None:
    limits = Limits(512)
    assert keys(COMPUTATION, limits, [("a", "b"), ("a", "b")]) == keys(COMPUTATION, limits, [("a", "b")]) * 2
    texts = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc", ""),
        ("", "abc"),
        ("c", "ab"),
        ("a\0", "b"),
        ("a", "\0b"),
        ("\ud800", ""),
    ]
    found = keys(COMPUTATION, limits, texts)
    for changed in (
        Computation("1" * 64, "float32", "cpu", deterministic=False),
        Computation("0" * 64, "float16", "cpu", deterministic=False),
        Computation("0" * 64, "float32", "gpu", deterministic=False),
        Computation("0" * 64, "float32", "cpu", deterministic=True),
    ):
        found += keys(changed, limits, texts)
    found += keys(COMPUTATION, Limits(511), texts) + keys(COMPUTATION, Limits(512, 384), texts)
    assert len(set(found)) == len(found)
    assert {len(name) for name in found} == {16}


@pytest.mark.parametrize("module", ["mlx_rerank", "mlx"])
def test_keys_depend_on_versions(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    before = keys(COMPUTATION, Limits(512), [("a", "b")])
    if module == "mlx":
        monkeypatch.setattr("mlx_rerank.scoring.cached_logits.version", lambda _: "99")
    else:
        monkeypatch.setattr("mlx_rerank.scoring.cached_logits.__version__", "99")
    assert keys(COMPUTATION, Limits(512), [("a", "b")]) != before


def test_the_fingerprint_is_of_what_files_hold(tiny: Path, tmp_path: Path) -> None:
    def fingerprint(directory: Path) -> str:
        return Checkpoint.open(directory).fingerprint(ScoreCache(tmp_path / "scores.db").digest)

    snapshot = tmp_path / "hub" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for path in tiny.iterdir():  # as the hub library keeps files
        blob = tmp_path / "hub" / path.name
        blob.write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(blob)
    assert fingerprint(snapshot) == fingerprint(snapshot) == fingerprint(tiny)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        content = (snapshot / name).read_bytes()
        changed = tmp_path / f"changed-{name}"
        changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if name == "model.safetensors" else content + b" ")
        (snapshot / name).unlink()
        (snapshot / name).symlink_to(changed)
        assert fingerprint(snapshot) != fingerprint(tiny), name
        (snapshot / name).unlink()
        (snapshot / name).symlink_to(tmp_path / "hub" / name)
    (snapshot / "README.md").write_text("no weights")
    assert fingerprint(snapshot) == fingerprint(tiny)


def test_non_finite_logits_are_not_kept(tiny: Path, tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.db")
    cache.put(
        {
            key(1): CachedScore(float("nan"), 0, 0, 9),
            key(2): CachedScore(float("-inf"), 0, 0, 9),
            key(3): CachedScore(1, 0, 0, 9),
        }
    )
    assert set(cache.get([key(1), key(2), key(3)])) == {key(3)}

    tensors = random_tensors(TINY) | {"classifier.out_proj.bias": np.array([np.nan], np.float32)}
    reranker = Reranker(write_checkpoint(tmp_path / "nan", tensors=tensors), score_cache=tmp_path / "scores.db")
    for _ in range(2):
        with pytest.raises(NonFiniteScoreError, match=r"\d of \d pairs .*counted without"):
            reranker.score(PAIRS)


@pytest.mark.numeric
def test_what_was_done_before_a_stop_is_kept(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("panda", "bear " * (i % 20)) for i in range(60)]
    expected = Reranker(tiny, deterministic=True).logits(pairs)
    reranker = Reranker(tiny, deterministic=True, score_cache=tmp_path / "scores.db")
    reranker.logits(pairs[:5])
    cancel, forward = threading.Event(), reranker.engine._forward
    calls: list[int] = []

    def counted(*batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            cancel.set()
        return forward(*batch)

    monkeypatch.setattr(reranker.engine, "_forward", counted)
    with pytest.raises(CancelledError, match=r"\d+ of 15 pairs were scored .* \d+ of 60 are known") as caught:
        reranker.logits(pairs, cancel=cancel)
    error = caught.value
    assert 3 * (5 + 3) <= len(error.indices) < 60
    assert set(range(5)) <= set(error.indices.tolist())
    np.testing.assert_array_equal(error.logits, expected.logits[error.indices])
    reranker.engine.apply(lambda *_: None, Batch(np.zeros((1, 1), np.int32)))  # until what was started is done
    done = len(calls)
    np.testing.assert_array_equal(reranker.logits(pairs).logits, expected.logits)
    assert len(calls) - done == 20 - len({i % 20 for i in error.indices.tolist()})  # the others alone


@pytest.mark.parametrize("unusable", ["", "scores.db/below/a/file", "null\0"])
def test_an_unusable_path_turns_the_cache_off(
    tmp_path: Path, tiny: Path, caplog: pytest.LogCaptureFixture, unusable: str
) -> None:
    (tmp_path / "scores.db").write_text("")
    reranker = Reranker(tiny, score_cache=f"{tmp_path}/{unusable}")
    for _ in range(2):
        expected = Reranker(tiny).logits(PAIRS).logits
        np.testing.assert_allclose(reranker.logits(PAIRS).logits, expected, rtol=0, atol=bounds.COMPANY)
    assert [record.message.endswith("scoring goes on without it") for record in caplog.records] == [True]


texts = st.text(st.sampled_from("abc panda熊 "), max_size=12)


@pytest.fixture(scope="module")
def deterministic(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Reranker, Reranker]:
    path = tmp_path_factory.mktemp("scores") / "scores.db"
    return Reranker(tiny, deterministic=True), Reranker(tiny, deterministic=True, score_cache=path)


@pytest.mark.numeric
@given(st.lists(st.tuples(texts, texts), max_size=6), st.integers(5, 66 - 2), st.sampled_from(["truncate", Windows()]))
@settings(max_examples=40, deadline=None)
def test_with_and_without_a_cache_is_the_same(
    deterministic: tuple[Reranker, Reranker],
    pairs: list[tuple[str, str]],
    max_length: int,
    long_documents: Literal["truncate"] | Windows,
) -> None:
    assume(max_length == 64 or long_documents == "truncate")
    limits = Limits(max_length, long_documents=long_documents)
    without, cached = (reranker.logits(pairs, limits=limits) for reranker in deterministic)
    np.testing.assert_array_equal(cached.logits, without.logits)
    np.testing.assert_array_equal(cached.truncated_tokens, without.truncated_tokens)
    np.testing.assert_array_equal(cached.spans, without.spans)


def test_what_is_computed_is_kept_even_where_another_pair_is_not_finite(
    tmp_path: Path, tiny_reranker: Reranker
) -> None:
    cached = CachedLogits(ScoreCache(tmp_path / "scores.db"), COMPUTATION, SIGMOID)
    asked: list[int] = []

    def compute(pairs: object) -> object:
        scored = tiny_reranker.logits(pairs)  # type: ignore[arg-type]
        asked.append(len(scored.logits))
        scored.logits[1:2] = np.nan
        return scored

    for _ in range(2):
        found = cached.complete(PAIRS, Limits(64), compute)  # type: ignore[arg-type]
        assert np.isfinite(found.logits).tolist() in ([True, False, True, True], [True, True, True, True])
    assert asked == [3, 1]
