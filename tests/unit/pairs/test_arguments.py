"""What callers pass, checked where it comes in."""

from collections import UserList
from collections.abc import Iterator

import numpy as np
import pytest

from mlx_rerank.errors import InputError
from mlx_rerank.pairs.arguments import (
    check_pairs,
    iterate_pairs,
    pairs_to_rank,
    pairs_to_score,
    require_sequence,
    require_unicode,
    require_whole_number,
)


def test_one_pair_or_many() -> None:
    assert pairs_to_score("q", "d") == ([("q", "d")], True)
    assert pairs_to_score([("q", "d")], None) == ([("q", "d")], False)
    for pairs, document in (("q", None), ([("q", "d")], "d")):
        with pytest.raises(InputError, match=r"a list of \(query, document\) pairs, or a query and a document"):
            pairs_to_score(pairs, document)


def test_documents_are_taken_from_any_iterable_with_an_order() -> None:
    documents = ["a", {"text": "b", "id": 1}]
    expected = (documents, [("q", "a"), ("q", "b")])
    for given in (documents, tuple(documents), iter(documents), UserList(documents)):
        assert pairs_to_rank("q", given) == expected


class Table(list):
    """Something with columns, over whose names it iterates."""

    columns = ("text",)


@pytest.mark.parametrize("wrong", ["text", b"text", {"a": 1}, {"a"}, frozenset("a"), Table(), 5, None])
def test_what_is_no_list(wrong: object) -> None:
    with pytest.raises(InputError, match=f"documents must be a list, not a {type(wrong).__name__}"):
        require_sequence("documents", wrong)


def test_a_query_is_a_text() -> None:
    for wrong in (None, 5, b"q", ["q"]):
        with pytest.raises(InputError, match="query must be a text, not"):
            pairs_to_rank(wrong, ["a"])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("wrong", ["ab", b"ab", {"q": 1, "d": 2}, {"q", "d"}, 5])
def test_what_is_no_pair(wrong: object) -> None:
    for check in (check_pairs, lambda pairs: list(iterate_pairs(pairs))):
        with pytest.raises(
            InputError, match=rf"pairs\[1\] must be a \(query, document\) pair, not {type(wrong).__name__}"
        ):
            check([("q", "d"), wrong])  # pyright: ignore[reportArgumentType]


def test_a_pair_is_two_texts() -> None:
    for wrong in (("q",), ("q", "d", "e"), (), ("q", 5), (None, "d")):
        with pytest.raises(InputError, match=rf"pairs\[0\] must be two texts; got {len(wrong)} values"):
            check_pairs([wrong])  # pyright: ignore[reportArgumentType]


def test_lone_surrogates_are_refused_in_either_text() -> None:
    assert check_pairs([("熊", "é")]) == [("熊", "é")]
    for pair in (("a\ud800", "d"), ("q", "a\ud800")):
        with pytest.raises(InputError, match=r"pairs\[0\]: character 1 of the text starting .* \(U\+D800\)"):
            check_pairs([pair])
    with pytest.raises(InputError, match=r"^character 0 of the text"):
        require_unicode("\udfff")


def test_a_list_is_checked_at_once_and_anything_else_as_it_is_read() -> None:
    bad = [("q", "d"), 5]
    for given in (bad, tuple(bad)):
        with pytest.raises(InputError, match=r"pairs\[1\]"):
            iterate_pairs(given)  # pyright: ignore[reportArgumentType]
    read: list[int] = []

    def pairs() -> Iterator[tuple[str, str]]:
        for i in range(3):
            read.append(i)
            yield "q", str(i)

    found = iterate_pairs(pairs())
    assert read == []
    assert next(found) == ("q", "0")
    assert read == [0]


def test_whole_numbers() -> None:
    assert require_whole_number("n", 1) == 1
    assert require_whole_number("n", 0, least=0) == 0
    assert require_whole_number("n", np.int64(7), least=7) == 7
    assert type(require_whole_number("n", np.int64(7))) is int
    for wrong, least in ((0, 1), (6, 7), (True, 1), (True, 0), (1.0, 1), ("1", 1), (None, 1)):
        with pytest.raises(InputError, match=f"n must be a whole number of at least {least}, not {wrong!r}"):
            require_whole_number("n", wrong, least)
