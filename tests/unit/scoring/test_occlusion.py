"""Explanations: weights that are differences of logits, of words that are those of the text."""

import threading
import time
from pathlib import Path

import bounds
import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from devices import busy_device
from explanations import assert_sound, explained, shown
from hypothesis import example, given, settings
from hypothesis import strategies as st
from texts import PAIRS

from mlx_rerank import Reranker
from mlx_rerank.errors import CancelledError, DeadlineError, InputError, NonFiniteScoreError
from mlx_rerank.pairs.batching import Batching, pad
from mlx_rerank.pairs.encoded import Row
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.windows import Windows
from mlx_rerank.scoring.explanation import Explanation, Highlight
from mlx_rerank.scoring.stopping import Stop

UNKNOWN = 3
words = st.text(alphabet="ab panda熊。แก่ ﷺ½ﬁ👩\u200d👧e\u0301\n?「\u200b\x07", max_size=60)


def logits(reranker: Reranker, rows: list[list[int]]) -> list[float]:
    """Return the logits of pairs of equal length, computed together: one by one they take several times as long."""
    [found] = reranker.engine.run([[pad([Row(np.array(ids, np.int32)) for ids in rows], 1)]])
    return found.tolist()


def without(reranker: Reranker, text: str, highlight: Highlight | None) -> list[int]:
    """Return a text's ids, those of a highlight's characters replaced."""
    ids, offsets = reranker.encoder.tokens(text)
    if highlight is None:
        return ids
    begins = [int(a) + len(text[a:]) - len(text[a:].lstrip()) for a, _ in offsets]  # without the space some begin with
    inside = [highlight.start <= begin < highlight.end for begin in begins]
    assert any(inside)
    return [UNKNOWN if gone else token for token, gone in zip(ids, inside, strict=True)]


def assert_weights(reranker: Reranker, found: Explanation) -> None:
    query, document = found.query, found.document
    q, d = without(reranker, query, None), without(reranker, document, None)
    rows = [[0, *q, 2, 2, *d, 2]]
    rows += [[0, *without(reranker, query, highlight), 2, 2, *d, 2] for highlight in found.query_highlights]
    rows += [[0, *q, 2, 2, *without(reranker, document, highlight), 2] for highlight in found.document_highlights]
    whole, *left = logits(reranker, rows)
    assert found.logit == pytest.approx(whole, abs=1e-4)
    weights = [highlight.weight for highlight in found.query_highlights + found.document_highlights]
    assert weights == pytest.approx([whole - each for each in left], rel=0, abs=1e-4)


@pytest.mark.numeric
def test_texts_that_lose_their_beginning(mini: Reranker) -> None:
    texts = "in the long run, what do the pandas eat?", "No rain today. The sea is calm. Pandas eat bamboo."
    limits = Limits(20, query_max_length=6, truncation_side="left")
    found = mini.model.explain(*texts, limits, Stop(), 64)
    begin = mini.encoder.tokens(texts[0])[1][-6][0]
    expected = mini.model.explain(texts[0][begin:], texts[1][found.span[0] :], Limits(20), Stop(), 64)
    assert found.truncated_tokens > 0
    assert found.span[1] == len(texts[1])
    assert found.logit == pytest.approx(expected.logit, abs=bounds.COMPANY)
    for name, text in (("query", texts[0]), ("document", texts[1])):
        ours, theirs = (getattr(each, f"{name}_highlights") for each in (found, expected))
        assert shown(text, ours) == shown(getattr(expected, name), theirs)
        assert [each.weight for each in ours] == pytest.approx([each.weight for each in theirs], abs=1e-4)


@pytest.mark.numeric
def test_weights_are_what_the_logit_falls(mini: Reranker) -> None:
    query, document = "What do pandas eat?", "The giant panda, a bear, eats  bamboo.\nﬁne ½ 大熊猫吃竹子。"
    found = explained(mini, query, document)
    assert shown(query, found.query_highlights) == ["What", "do", "pandas", "eat?"]
    expected = [
        "The",
        "giant",
        "panda,",
        "a",
        "bear,",
        "eats",
        "bamboo.",
        "ﬁne",
        "½",
        "大",
        "熊",
        "猫",
        "吃",
        "竹",
        "子。",
    ]
    assert shown(document, found.document_highlights) == expected
    assert not any(h.part for h in found.query_highlights + found.document_highlights)
    assert_weights(mini, found)
    assert (found.score, found.logit) == (
        bounds.near(mini.score(query, document)),
        bounds.near(mini.score(query, document, raw_scores=True), raw=True),
    )
    assert (found.query, found.document, found.truncated_tokens) == (query, document, 0)
    assert found.span == (0, len(document))


@given(words, words, st.sampled_from([2, 5, 16, 128]), st.sampled_from([12, 64, 512]))
@settings(max_examples=40, deadline=None)
@example("", "", 2, 12)
@example("a", "ﷺﷺ", 128, 12)
def test_highlights_are_words_of_what_was_read(small, query, document, max_passes, max_length) -> None:
    found = explained(small, query, document, max_passes=max_passes, limits=Limits(max_length))
    assert_sound(small, found)
    if not found.truncated_tokens:
        assert_weights(small, found)


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize(("query", "document"), PAIRS)
def test_texts_that_have_broken_things_before(small: Reranker, query: str, document: str) -> None:
    found = explained(small, query, document, max_passes=24 if len(query + document) < 1000 else 8)
    assert_sound(small, found)
    scored = small.logits([(query, document)])
    assert found.logit == bounds.near(scored.logits[0], raw=True)
    assert (found.truncated_tokens, found.span) == (scored.truncated_tokens[0], tuple(scored.spans[0]))


def test_only_what_was_read_is_explained(small: Reranker) -> None:
    document = "The bear eats. " * 30
    found = explained(small, "panda", document, limits=Limits(32))
    assert found.truncated_tokens > 50
    assert 20 < found.span[1] < 150
    assert_sound(small, found)
    assert found.document_highlights[-1].end == found.span[1]
    query = "panda bear " * 40
    found = explained(small, query, document, limits=Limits(32))
    assert found.query_highlights[-1].end == small.encoder.tokens(query)[1][32 * 3 // 4 - 1, 1]
    with pytest.raises(InputError, match="more than max_length 32"):
        explained(small, "panda", document, limits=Limits(32, long_documents="error"))


@pytest.mark.numeric
def test_the_best_window_is_explained(mini: Reranker) -> None:
    query, answer = "What do pandas eat?", "Pandas eat bamboo."
    filler = "The train to the coast leaves at nine. It stops at every station. " * 5
    document = f"{filler}\n\n{answer}\n\n{filler}"
    found = explained(mini, query, document, limits=Limits(64, long_documents=Windows(32, 0)), max_passes=40)
    begin, end = found.span
    assert answer in document[begin:end]
    assert end - begin < len(filler)
    assert_sound(mini, found)
    assert found.document_highlights[0].start == begin + len(document[begin:end]) - len(document[begin:end].lstrip())
    assert "Pandas" in shown(document, tuple(found.top(2)))
    window = explained(mini, query, document[begin:end].strip())
    assert found.logit == pytest.approx(window.logit, abs=1e-4)


def count_rows(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that will hold the rows of each batch."""
    rows, run = [], reranker.engine.run

    def counting(groups, stop=None):
        groups = list(groups)
        rows.extend(len(batch.input_ids) for group in groups for batch in group)
        return run(groups, stop)

    monkeypatch.setattr(reranker.engine, "run", counting)
    return rows


def test_long_documents_go_from_sentences_to_words(small: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = [" ".join(f"{chr(97 + i)}{j}" for j in range(7)) + "." for i in range(12)]
    document = " ".join(sentences)
    rows = count_rows(small, monkeypatch)
    found = explained(small, "bear", document, max_passes=48)
    assert sum(rows) - 1 == 1 + 12 + 7 * 5  # the query's word, the sentences, and the words of as many as may be
    assert_sound(small, found)
    assert_weights(small, found)
    parts = [h for h in found.document_highlights if h.part]
    assert len(parts) == 7
    assert set(shown(document, tuple(parts))) < set(sentences)
    whole = [Highlight(document.index(sentence), document.index(sentence) + len(sentence), 0) for sentence in sentences]
    bear = [0, *without(small, "bear", None), 2, 2]
    left = logits(small, [[*bear, *without(small, document, part), 2] for part in whole])
    divided = {whole[i].start for i in np.argsort(left)[:5]}  # without these the logit is lowest
    assert divided.isdisjoint(part.start for part in parts)


@pytest.mark.parametrize("words", [13, 24, 25])
def test_words_are_hidden_one_by_one_if_half_of_the_passes_suffice(
    small: Reranker, monkeypatch: pytest.MonkeyPatch, words: int
) -> None:
    rows = count_rows(small, monkeypatch)
    explained(small, "bear", " ".join(f"a{i}" for i in range(words)), max_passes=48)
    alone = sum(rows) == 1 + 1 + words  # the pair, the query's word and the document's, and no groups of words
    assert alone == (words <= 24)


def test_parts_are_sentences_or_lines(small: Reranker) -> None:
    ends = ["Is one (two)?", "“Three is four.”", "five 3.5 six", "seven eight", "九十。", "一二三！」", "the rest"]
    parts = ["a bc " * 11 + end for end in ends]  # of too many words for the passes that are left
    document = "{} {} {}\n{}\n\n{}{} {}".format(*parts)
    assert shown(document, explained(small, "", document, max_passes=28).document_highlights) == parts


@pytest.mark.parametrize("max_passes", [2, 3, 9, 64])
def test_passes_are_bounded(small: Reranker, monkeypatch: pytest.MonkeyPatch, max_passes: int) -> None:
    rows = count_rows(small, monkeypatch)
    query, document = "what is it " * 12, "no sentence ends here " * 25
    found = explained(small, query, document, max_passes=max_passes)
    assert sum(rows) - 1 <= max_passes
    assert_sound(small, found)
    assert_weights(small, found)
    assert all(h.part for h in found.query_highlights + found.document_highlights) == (max_passes < 64)
    rows.clear()
    short = explained(small, "bear", "one two three four", max_passes=max_passes)
    assert sum(rows) - 1 <= max_passes
    assert len(short.document_highlights) == min(4, max(1, max_passes // 4)) or max_passes > 8


@pytest.mark.numeric
def test_the_same_bits_every_time(mini: Reranker) -> None:
    query, document = "Pandas eat?", "Pandas eat bamboo."
    found = explained(mini, query, document, batching=Batching(512, max_rows=1))
    assert found == explained(mini, query, document, batching=Batching(64, max_rows=1))
    other, twice = explained(mini, query, document), explained(mini, query, document)
    weights = pytest.approx([h.weight for h in other.document_highlights], rel=0, abs=2 * bounds.COMPANY)
    assert [h.weight for h in twice.document_highlights] == weights  # each is the difference of two logits
    expected = [h.weight for h in found.document_highlights]
    assert [h.weight for h in other.document_highlights] == pytest.approx(expected, abs=1e-4)


def test_bad_input(small: Reranker) -> None:
    for query, document, message in [
        (None, "a", "query must be a text, not NoneType"),
        ("a", b"b", "document must be a text, not bytes"),
        ("a", {"text": "b"}, "document must be a text, not dict"),
        ("a", "half \ud83d", "lone surrogate"),
        ("half \ud83d", "a", "lone surrogate"),
    ]:
        with pytest.raises(InputError, match=message):
            explained(small, query, document)  # pyright: ignore[reportArgumentType]
    for bad in (1, 0, 2.5, True, None):
        with pytest.raises(InputError, match="max_passes must be a whole number of at least 2"):
            explained(small, "a", "b", max_passes=bad)


@pytest.mark.parametrize("damaged", ["▁panda", "<unk>"])
def test_logits_that_are_not_finite(tmp_path: Path, damaged: str) -> None:
    tensors = random_tensors(TINY)
    tensors["roberta.embeddings.word_embeddings.weight"][{"▁panda": 4, "<unk>": UNKNOWN}[damaged]] = np.nan
    reranker = Reranker(write_checkpoint(tmp_path, tensors=tensors), dtype="float32")
    with pytest.raises(NonFiniteScoreError, match=r"\('what', 'panda'\).*try dtype='float32'"):
        explained(reranker, "what", "panda", limits=Limits(20))


def test_deadlines_and_events(small: Reranker) -> None:
    with busy_device():
        start = time.monotonic()
        with pytest.raises(DeadlineError, match=r"^0 of at most 128 passes of an explanation were done in 0\.1 s") as e:
            explained(small, "panda", "the bear", stop=Stop(0.1))
        assert 0.1 <= time.monotonic() - start < 2
    nothing = [e.value.indices, e.value.logits, e.value.truncated_tokens, e.value.spans]
    assert [(part.shape, part.dtype) for part in nothing] == [
        ((0,), np.int64),
        ((0,), np.float32),
        ((0,), np.int64),
        ((0, 2), np.int64),
    ]
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError, match="when cancel was set"):
        explained(small, "panda", "the bear", stop=Stop(cancel=cancel))
