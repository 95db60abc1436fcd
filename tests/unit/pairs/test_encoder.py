"""Tokenisation: the ids of a pair, where it is cut, and what is counted."""

from typing import Any

import numpy as np
import pytest
from checkpoints import TINY, encoder_of, shape_of, tiny_tokenizer
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mlx_rerank.errors import CheckpointError, InputError
from mlx_rerank.pairs.arguments import check_pairs, document_text
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.windows import Windows

CONFIG = shape_of(TINY)
ENCODER = encoder_of(tiny_tokenizer(), CONFIG)
PLAIN = tiny_tokenizer()
WORDS = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
WORDS.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
texts = st.text(alphabet="ab panda熊\n<s>/", max_size=60)


def ids_of(text: str) -> list[int]:
    return PLAIN.encode(text, add_special_tokens=False).ids


@given(texts, texts, st.integers(5, 80), st.none() | st.integers(1, 90))
def test_one_pair(query: str, document: str, max_length: int, query_max_length: int | None) -> None:
    encoded = ENCODER.encode([(query, document)], Limits(max_length, query_max_length))
    sequence = encoded.sequences[0].ids.tolist()
    wanted = max_length * 3 // 4 if query_max_length is None else query_max_length
    q = ids_of(query)[: min(wanted, max_length - 4)]
    d = ids_of(document)[: max_length - 4 - len(q)]
    assert sequence == [0, *q, 2, 2, *d, 2]
    assert len(sequence) <= max_length
    assert encoded.truncated_tokens[0] == len(ids_of(query)) + len(ids_of(document)) + 4 - len(sequence)


def truncating_tokenizer(max_length: int) -> Tokenizer:
    """Return one that joins pairs and cuts them by itself."""
    tokenizer = tiny_tokenizer()
    special = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=special
    )
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    return tokenizer


@given(texts, texts, st.integers(5, 80))
@example("aaaaaaaa", "bbbbbbbb", 14)
@example("aaaaaaaa", "bbbbbbbb", 15)  # an odd number of tokens for two texts of one length
@example("aaaaaaaa", "bbbbb", 13)
@example("aaaaa", "bbbbbbbb", 13)
@example("aaaa", "bbbbbbbb", 14)
def test_longest_first_is_the_tokenizers_librarys(query: str, document: str, max_length: int) -> None:
    encoded = ENCODER.encode([(query, document)], Limits(max_length, longest_first=True))
    expected = truncating_tokenizer(max_length).encode(query, document).ids
    assert encoded.sequences[0].ids.tolist() == expected
    assert encoded.truncated_tokens[0] == len(ids_of(query)) + len(ids_of(document)) + 4 - len(expected)


@given(st.integers(0, 150), st.integers(0, 150), st.integers(5, 330))
def test_longest_first_of_many_lengths(query_length: int, document_length: int, max_length: int) -> None:
    WORDS.enable_truncation(max_length - 4, strategy="longest_first")  # it adds no special tokens
    ids = WORDS.encode("a " * query_length, "b " * document_length).ids
    limits = Limits(max_length, longest_first=True)
    expected = ids.count(0), ids.count(1)
    assert limits.split(query_length, document_length, limits.room(4)) == expected


def test_longest_first_leaves_no_limits_to_the_texts() -> None:
    others: list[dict[str, Any]] = [
        {"query_max_length": 9},
        {"document_max_length": 9},
        {"long_documents": Windows()},
    ]
    for other in others:
        with pytest.raises(InputError, match="longest_first says how much is kept"):
            Limits(64, longest_first=True, **other)
    with pytest.raises(InputError, match="more than max_length 8 allows"):
        ENCODER.encode([("panda", "the bear " * 9)], Limits(8, long_documents="error", longest_first=True))


@given(st.lists(st.tuples(texts, texts), max_size=30))
@example([("a", "b"), ("a", "b"), ("b", "a")])
def test_distinct_pairs_once(pairs: list[tuple[str, str]]) -> None:
    encoded = ENCODER.encode(pairs, Limits(20))
    assert len({row.ids.tobytes() for row in encoded.sequences}) == len(encoded.sequences)
    for i, pair in enumerate(pairs):
        alone = ENCODER.encode([pair], Limits(20))
        np.testing.assert_array_equal(encoded.sequences[encoded.inverse[i]].ids, alone.sequences[0].ids)
        assert encoded.truncated_tokens[i] == alone.truncated_tokens[0]
    assert [len(row.ids) for row in encoded.sequences] == encoded.lengths.tolist()


def test_each_text_is_tokenised_once() -> None:
    class Counting:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def __getattr__(self, name: str):
            return getattr(PLAIN, name)

        def encode_batch_fast(self, batch: list[str], **options: bool):
            self.seen += batch
            return PLAIN.encode_batch_fast(batch, **options)

    counting = Counting()
    encoder = encoder_of(counting, CONFIG)  # pyright: ignore[reportArgumentType]
    encoder.encode([("q", f"document {i % 3}") for i in range(9)], Limits(20))
    assert sorted(counting.seen) == ["document 0", "document 1", "document 2", "q"]


def test_query_and_document_share_the_room_as_flagembedding_does() -> None:
    room = Limits(512).room(4)
    assert Limits(512).split(1000, 1000, room) == (384, 124)
    assert Limits(512).split(10, 1000, room) == (10, 498)
    assert Limits(512, 512).split(1000, 1000, room) == (508, 0)  # the query never takes the special tokens' room


@pytest.mark.parametrize(
    ("max_length", "query_max_length"), [(4, None), (0, None), (-1, None), (20, 0), ("64", None), (9.5, None)]
)
def test_limits_that_leave_nothing(max_length: int, query_max_length: int | None) -> None:
    with pytest.raises(InputError, match="max_length"):
        ENCODER.encode([], Limits(max_length, query_max_length))


def test_lone_surrogates_are_named() -> None:
    with pytest.raises(InputError, match=r"character 4 .*U\+D83D"):
        ENCODER.encode([("fine", "bad \ud83d half")], Limits(20))


def test_tokenizers_that_do_not_fit_the_model() -> None:
    small = shape_of(TINY | {"vocab_size": 50})
    with pytest.raises(CheckpointError, match="token of id 95; the model's table has 50 rows"):
        encoder_of(tiny_tokenizer(), small)
    other = shape_of(TINY | {"pad_token_id": 3, "max_position_embeddings": 68})
    with pytest.raises(CheckpointError, match="special tokens"):
        encoder_of(tiny_tokenizer(), other)


def test_a_tokenizer_that_truncates_is_told_not_to() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50)
    encoded = encoder_of(tokenizer, CONFIG).encode([("panda", "the bear is what")], Limits(64))
    assert encoded.sequences[0].tokens == 4 + len(ids_of("panda")) + len(ids_of("the bear is what"))
    assert encoded.truncated_tokens[0] == 0


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("ab", "not a str"),
        ({"query": "a"}, "not a dict"),
        ([("a", "b"), "ab"], r"pairs\[1\] must be a \(query, document\) pair, not str 'ab'"),
        ([("a", "b", "c")], r"pairs\[0\] must be two texts; got 3"),
        ([("a", None)], r"pairs\[0\] must be two texts; got 2 values of type str, NoneType"),
        ([5], r"pairs\[0\].*int"),
        ([("a", b"b")], "bytes"),
    ],
)
def test_what_is_not_pairs(pairs: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_pairs(pairs)  # pyright: ignore[reportArgumentType]


def test_pairs_may_be_lists_and_generators() -> None:
    assert check_pairs([["ab", "c"] for _ in range(1)]) == [("ab", "c")]
    assert check_pairs((q, d) for q, d in [("a", "b")]) == [("a", "b")]


def test_document_text() -> None:
    assert document_text("plain", 0) == "plain"
    assert document_text({"text": "in a mapping", "id": 3}, 0) == "in a mapping"
    for wrong in (None, 5, {"content": "x"}, {"text": None}, ["list"]):
        with pytest.raises(InputError, match=r"documents\[7\] must be a text or a mapping"):
            document_text(wrong, 7)  # pyright: ignore[reportArgumentType]
