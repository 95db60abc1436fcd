"""Texts that lose their beginning: what is kept of them, in the rows and in what is told of these."""

import numpy as np
import pytest
from checkpoints import TINY, shape_of, tiny_tokenizer
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_rerank.errors import InputError
from mlx_rerank.models.encoders.xlm_roberta import FAMILY
from mlx_rerank.pairs.encoder import PairEncoder
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.windows import Windows

SHAPE = shape_of(TINY)
PLAIN = tiny_tokenizer()
ENCODER = PairEncoder(tiny_tokenizer(), FAMILY.frame(PLAIN, SHAPE), SHAPE.vocab_size, "left")
texts = st.text(alphabet="ab panda熊\n<s>/", max_size=60)


def ids_of(text: str) -> list[int]:
    return PLAIN.encode(text, add_special_tokens=False).ids


def last(ids: list[int], count: int) -> list[int]:
    return ids[len(ids) - min(count, len(ids)) :]


@given(texts, texts, st.integers(5, 80), st.none() | st.integers(1, 90))
@example("a" * 40, "b" * 40, 20, 90)  # nothing of the document is left
def test_one_pair(query: str, document: str, max_length: int, query_max_length: int | None) -> None:
    encoded = ENCODER.encode([(query, document)], Limits(max_length, query_max_length))
    sequence = encoded.sequences[0].ids.tolist()
    wanted = max_length * 3 // 4 if query_max_length is None else query_max_length
    q = last(ids_of(query), min(wanted, max_length - 4))
    d = last(ids_of(document), max_length - 4 - len(q))
    assert sequence == [0, *q, 2, 2, *d, 2]
    assert encoded.truncated_tokens[0] == len(ids_of(query)) + len(ids_of(document)) + 4 - len(sequence)
    begin, end = encoded.spans[0].tolist()
    assert end == (len(document) if d or not ids_of(document) else 0)
    offsets = PLAIN.encode(document, add_special_tokens=False).offsets
    assert begin == (offsets[len(offsets) - len(d)][0] if 0 < len(d) < len(offsets) else 0)


@given(texts, texts, st.integers(5, 80))
@example("aaaaaaaa", "bbbbbbbb", 15)  # an odd number of tokens for two texts of one length
def test_longest_first_is_the_tokenizers_librarys(query: str, document: str, max_length: int) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.enable_truncation(max_length, strategy="longest_first", direction="left")
    encoded = ENCODER.encode([(query, document)], Limits(max_length, longest_first=True))
    assert encoded.sequences[0].ids.tolist() == tokenizer.encode(query, document).ids


def test_limits_outweigh_the_tokenizer() -> None:
    pair = [("panda", "the bear " * 20)]
    right = ENCODER.encode(pair, Limits(20, truncation_side="right")).sequences[0].ids.tolist()
    assert right[-16:-1] != ENCODER.encode(pair, Limits(20)).sequences[0].ids.tolist()[-16:-1]
    assert (
        right
        == PairEncoder(tiny_tokenizer(), ENCODER.frame, SHAPE.vocab_size)
        .encode(pair, Limits(20))
        .sequences[0]
        .ids.tolist()
    )
    for wrong in ("Left", "", True):
        with pytest.raises(InputError, match="truncation_side must be 'right', 'left' or None"):
            Limits(20, truncation_side=wrong)  # pyright: ignore[reportArgumentType]


def test_windows_are_of_the_documents_last_part() -> None:
    document = "the panda. " * 30 + "what is the bear. " * 30
    limits = Limits(64, document_max_length=90, long_documents=Windows(length=24, overlap=0))
    encoded = ENCODER.encode([("panda", document)], limits)
    rows = [row.ids.tolist() for row in encoded.sequences]
    begin = len(rows[0]) - len(rows[0][rows[0].index(2) + 2 :])
    read = [token for place in encoded.inverse for token in rows[place][begin:-1]]
    assert read == last(ids_of(document), 90)
    offsets = PLAIN.encode(document, add_special_tokens=False).offsets
    assert encoded.spans[0, 0] == offsets[len(offsets) - 90][0]
    assert encoded.spans[-1, 1] == len(document)
    assert encoded.truncated_tokens[0] == len(offsets) - 90
    assert encoded.share_read[0] == pytest.approx(90 / len(offsets))
    assert np.all(encoded.spans[1:, 0] >= encoded.spans[:-1, 1])
