"""Windows of long documents: where they are cut, that nothing is lost, and what becomes of their logits."""

import math
from itertools import pairwise
from pathlib import Path

import bounds
import numpy as np
import pytest
from checkpoints import TINY, encoder_of, shape_of, tiny_tokenizer
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_rerank import Reranker
from mlx_rerank.errors import InputError
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.windows import Windows, combine

ENCODER = encoder_of(tiny_tokenizer(), shape_of(TINY))
texts = st.text(alphabet="ab panda熊.!。\n?)", max_size=400)


def letters(text: str) -> np.ndarray:
    """Return the offsets of a tokeniser that makes a token of each letter that is no space."""
    return np.array([(i, i + 1) for i, letter in enumerate(text) if not letter.isspace()], np.int64).reshape(-1, 2)


def cut(text: str, windows: Windows, room: int) -> list[str]:
    offsets = letters(text)
    return [text[offsets[a, 0] : offsets[b - 1, 1]] for a, b in windows.cut(text, offsets, room)]


def test_paragraphs_are_windows() -> None:
    paragraphs = [letter * length + "." for letter, length in zip("abcdefg", (7, 40, 1, 1, 9, 70, 2), strict=True)]
    assert cut("\n\n".join(paragraphs), Windows(length=32, overlap=0), 60) == [
        paragraphs[0],
        paragraphs[1],  # longer than 32, and fits
        "c.\n\nd.",  # of less than an eighth, together
        paragraphs[4],
        "f" * 32,
        "f" * 32,
        "f" * 6 + ".\n\n" + paragraphs[-1],  # the last is too short to be alone
    ]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("aaaa bbbb. cccc dddd eeee ffff", "aaaa bbbb."),  # a sentence, though more words would fit
        ("aaaa\nbbbb cccc dddd eeee ffff", "aaaa\nbbbb cccc dddd"),  # the line's end comes too early
        ("aaaa bbbb\ncccc dddd eeee ffff", "aaaa bbbb"),  # a line
        ("aaaa. bbbb\n \ncc. dddd eeee fff", "aaaa. bbbb"),  # a paragraph
        ("熊猫吃竹子很好吃。它们住在山里。很好很好很好。", "熊猫吃竹子很好吃。它们住在山里。"),
        ("aaaa “bbbb?” cccc dddd eeee", "aaaa “bbbb?”"),
        ("aaaabbbbccccddddeeeeffff", "aaaabbbbccccdddd"),  # nothing to cut at
    ],
)
def test_what_a_window_ends_with(text: str, first: str) -> None:
    assert cut(text, Windows(length=16, overlap=0), 16)[0] == first


def test_windows_overlap_within_a_paragraph() -> None:
    text = "aaaa bbb. cc dd. eeee fff. gg hh. iiii jjj. kk ll."
    assert cut(text, Windows(length=16, overlap=8), 16) == [
        "aaaa bbb. cc dd.",
        "cc dd. eeee fff.",
        "eeee fff. gg hh.",
        "gg hh. iiii jjj.",
        "iiii jjj. kk ll.",
    ]


def test_windows_do_not_overlap_where_a_paragraph_ends() -> None:
    paragraphs = ["aaaa bbb. cc dd.", "eeee fff. gg hh.", "iiii jjj. kk ll."]
    assert cut("\n\n".join(paragraphs), Windows(length=16, overlap=8), 16) == paragraphs


def test_the_end_of_a_document_is_no_window_of_its_own_if_it_is_short() -> None:
    text = "a" * 14 + ".\n\n" + "b" * 14 + ".\n\n"
    windows = Windows(length=32, overlap=0)  # of which an eighth are four tokens
    assert cut(text + "cccc", windows, 60) == ["a" * 14 + ".", "b" * 14 + ".", "cccc"]
    assert cut(text + "ccc", windows, 60) == ["a" * 14 + ".", "b" * 14 + ".\n\nccc"]
    assert cut(text + "c", windows, 16) == ["a" * 14 + ".", "b" * 14 + ".\n\nc"]
    assert cut(text + "c", windows, 15) == ["a" * 14 + ".", "b" * 14 + ".", "c"]  # for which there is no room


def test_a_document_without_tokens_has_one_window() -> None:
    assert Windows().cut("", letters(""), 60) == [(0, 0)]


@given(texts, st.integers(1, 60), st.integers(16, 80), st.integers(0, 8))
@example("a" * 100, 1, 16, 8)
@example("a\n\n" * 100, 7, 16, 8)
def test_windows_hold_every_token_in_order(text: str, room: int, length: int, overlap: int) -> None:
    offsets = letters(text)
    found = Windows(length, overlap).cut(text, offsets, room)
    assert found[0][0] == 0
    assert found[-1][1] == len(offsets)
    assert all(b - a <= room for a, b in found)
    for (a, b), (c, d) in pairwise(found):
        assert a < c <= b < d
        if (c, d) != found[-1]:
            assert b - c <= overlap


@given(st.text(alphabet="ab panda熊", max_size=12), texts, st.integers(64, 100), st.integers(16, 80))
def test_rows_of_a_pair(query: str, document: str, max_length: int, length: int) -> None:
    limits = Limits(max_length, long_documents=Windows(length, 8))
    encoded = ENCODER.encode([("a", "b"), (query, document), ("a", document)], limits)
    rows = np.flatnonzero(encoded.owners == 1)
    ids, offsets = ENCODER.tokens(document)
    q = ENCODER.tokens(query)[0][: (max_length - 4) * 3 // 4]
    reached = 0
    for row in rows:
        sequence = encoded.sequences[encoded.inverse[row]].ids.tolist()
        begin, end = encoded.spans[row]
        inside = np.flatnonzero((offsets[:, 0] >= begin) & (offsets[:, 1] <= end))
        assert sequence == [0, *q, 2, 2, *(ids[i] for i in inside), 2]
        assert len(sequence) <= max_length
        assert begin <= reached <= end or not document
        reached = end
    assert (encoded.spans[rows[0], 0], reached) == (0, len(document))
    assert encoded.tokens[1] == sum(encoded.sequences[encoded.inverse[row]].tokens for row in rows)
    assert encoded.share_read[1] == 1
    assert encoded.truncated_tokens[1] == len(ENCODER.tokens(query)[0]) - len(q)


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=8), st.integers(1, 5))
def test_logits_of_windows(logits: list[float], best: int) -> None:
    logit, place = combine(logits, best)
    highest = sorted(logits)[-best:]
    assert logit == pytest.approx(sum(highest) / len(highest), abs=1e-6)
    assert logits[place] == max(logits)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_window_that_is_not_finite_is_not_passed_over(bad: float) -> None:
    assert not math.isfinite(combine([1.0, bad, 2.0], 1)[0])


@pytest.mark.numeric
def test_a_long_document_has_its_best_window_s_score(mini: Reranker) -> None:
    reranker = Reranker("mini", device="cpu", max_length=64, long_documents="windows")
    query, answer = "What do pandas eat?", "Pandas eat bamboo."
    filler = "The train to the coast leaves at nine. It stops at every station on the way. " * 5
    document = {"id": 3, "text": f"{filler}\n\n{answer}\n\n{filler}"}
    [short, long] = sorted(reranker.rank(query, ["hi", document], raw_scores=True), key=lambda result: result.index)
    begin, end = long.span
    assert answer in document["text"][begin:end]
    assert len(document["text"][begin:end]) < 400
    assert (short.span, long.truncated_tokens, long.document) == ((0, 2), 0, document)
    alone = mini.score(query, document["text"][begin:end].strip(), raw_scores=True)
    assert long.score == bounds.near(alone, raw=True)
    cut = Reranker("mini", device="cpu", max_length=64).rank(query, [document], raw_scores=True)[0]
    assert cut.truncated_tokens > 100
    assert document["text"][: cut.span[1]] in filler
    assert cut.score < long.score


@pytest.mark.numeric
def test_the_mean_of_the_best_windows(mini: Reranker) -> None:
    windows = Windows(length=16, overlap=0, best=2)
    reranker = Reranker("mini", device="cpu", max_length=64, long_documents=windows)
    document = "Pandas eat bamboo. " * 6 + "Trains run on rails, and they are late. " * 3
    encoded = reranker.encoder.encode([("What do pandas eat?", document)], reranker.limits)
    parts = [("What do pandas eat?", document[a:b].strip()) for a, b in encoded.spans]
    assert len(parts) >= 3
    expected = np.sort(mini.logits(parts).logits)[-2:].mean()
    found = reranker.logits([("What do pandas eat?", document)])
    assert found.logits[0] == bounds.near(expected, raw=True)
    stream = list(reranker.score_stream([("a", "b"), ("What do pandas eat?", document)], raw_scores=True))
    assert [pair.index for pair in stream] == [0, 1]
    assert stream[1].score == bounds.near(expected, raw=True)
    assert stream[1].span == tuple(found.spans[0])


def test_a_document_that_is_too_long_can_be_an_error(tiny: Path) -> None:
    reranker = Reranker(tiny, max_length=32, long_documents="error")
    assert reranker.score("bear", "short") > 0
    with pytest.raises(InputError, match=r"'aa aa.* tokens, more than max_length 32 allows: .*'truncate' or 'windows'"):
        reranker.rank("bear", ["short", "aa " * 40])
    with pytest.raises(InputError, match="more than max_length 32"):
        reranker.score("bear " * 40, "short")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Reranker(long_documents="split"), "must be 'truncate', 'windows', 'error' or a Windows, not 'split'"),
        (lambda: Reranker(long_documents=None), "not None"),  # pyright: ignore[reportArgumentType]
        (lambda: Reranker(max_length=63, long_documents="windows"), "max_length 63 is too little .* use 64 or more"),
        (lambda: Windows(length=15), "length of windows must be a whole number of at least 16, not 15"),
        (lambda: Windows(overlap=-1), "overlap of windows must be a whole number of at least 0, not -1"),
        (lambda: Windows(length=20, overlap=11), "overlap 11 is more than half of the windows' length 20"),
        (lambda: Windows(best=0), "best of windows must be a whole number of at least 1, not 0"),
    ],
)
def test_what_is_no_way_to_read(make: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()  # pyright: ignore[reportCallIssue]
