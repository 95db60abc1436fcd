"""How much of each text is kept, and which limits are refused."""

import pytest

from mlx_rerank.errors import InputError
from mlx_rerank.pairs.limits import Limits, LongDocuments, checked_length, parse_long_documents
from mlx_rerank.pairs.windows import Windows


def test_a_query_has_three_quarters_of_max_length_unless_told_otherwise() -> None:
    assert Limits(100).split(90, 90, 96) == (75, 21)
    assert Limits(101).split(90, 90, 97) == (75, 22)
    assert Limits(100, 40).split(90, 90, 96) == (40, 56)
    assert Limits(100, 90).split(90, 90, 96) == (90, 6)
    assert Limits(100, 5).split(3, 90, 96) == (3, 90)


def test_a_document_may_have_a_limit_of_its_own() -> None:
    assert Limits(100, document_max_length=10).split(20, 90, 96) == (20, 10)
    assert Limits(100, document_max_length=10).split(20, 7, 96) == (20, 7)
    assert Limits(100, 50, document_max_length=80).split(50, 90, 96) == (50, 46)  # the query's share comes first


def test_windows_leave_a_quarter_of_the_room_to_the_document() -> None:
    windows = Limits(100, 100, long_documents=Windows())
    assert windows.split(200, 200, 96) == (72, 24)
    assert Limits(100, 100).split(200, 200, 96) == (96, 0)


def test_longest_first_cuts_the_longer_text() -> None:
    limits = Limits(24, longest_first=True)
    assert limits.split(30, 30, 20) == (10, 10)
    assert limits.split(30, 29, 19) == (10, 9)
    assert limits.split(29, 30, 19) == (9, 10)
    assert limits.split(30, 4, 20) == (16, 4)
    assert limits.split(4, 30, 20) == (4, 16)
    assert limits.split(4, 5, 20) == (4, 5)


def test_texts_have_no_order_of_length_unless_asked_for() -> None:
    assert not Limits(64).longest_first
    assert Limits(64).best == Limits(64, long_documents="error").best == 1
    assert Limits(64, long_documents=Windows(best=3)).best == 3


@pytest.mark.parametrize("name", ["query_max_length", "document_max_length"])
def test_limits_of_a_text_are_whole_numbers_above_none(name: str) -> None:
    assert getattr(Limits(64, **{name: 1}), name) == 1  # pyright: ignore[reportArgumentType]
    for wrong in (0, -3, 2.5, "9", True):
        with pytest.raises(InputError, match=f"{name} must be a whole number of at least 1, not {wrong!r}"):
            Limits(64, **{name: wrong})  # pyright: ignore[reportArgumentType]


def test_longest_first_takes_neither_limits_of_a_text_nor_windows() -> None:
    for other in ({"query_max_length": 9}, {"document_max_length": 9}, {"long_documents": Windows()}):
        with pytest.raises(InputError, match="longest_first says how much is kept of each text"):
            Limits(64, longest_first=True, **other)  # pyright: ignore[reportArgumentType]


def test_the_least_that_windows_need() -> None:
    assert Limits(64, long_documents=Windows()).max_length == 64
    with pytest.raises(InputError, match="max_length 63 is too little to read documents in windows: use 64 or more"):
        Limits(63, long_documents=Windows())


def test_room() -> None:
    assert Limits(5).room(4) == 1
    for max_length in (0, 4):
        with pytest.raises(InputError, match=f"max_length {max_length} leaves no room for text: 4 tokens"):
            Limits(max_length).room(4)


def test_checked_length() -> None:
    assert checked_length(64, 64, 4) == 64
    assert checked_length(5, 64, 4) == 5
    with pytest.raises(InputError, match="max_length 65 exceeds this model's limit of 64 tokens"):
        checked_length(65, 64, 4)
    with pytest.raises(InputError, match="leaves no room"):
        checked_length(4, 64, 4)


@pytest.mark.parametrize("value", ["truncate", "error", Windows(length=20, overlap=4)])
def test_ways_to_read_long_documents_stay_as_they_are(value: LongDocuments) -> None:
    assert parse_long_documents(value) == value


def test_windows_by_name_are_the_usual_ones() -> None:
    assert parse_long_documents("windows") == Windows(length=256, overlap=64, best=1)
    with pytest.raises(InputError, match="must be 'truncate', 'windows', 'error' or a Windows, not 'window'"):
        parse_long_documents("window")
