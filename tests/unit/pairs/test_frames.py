"""What surrounds the two texts in a row, and where its parts are."""

from dataclasses import replace

import numpy as np
import pytest

from mlx_rerank.pairs.frames import Frame

FRAME = Frame(start=(1,), middle=(2, 2), end=(2, 9), pad=0, hidden=3)


@pytest.mark.parametrize("segments", [False, True])
def test_rows_of_a_query_and_parts_of_a_document(segments: bool) -> None:
    frame = replace(FRAME, segments=segments)
    rows = frame.rows([7, 8], [[5], [], [5, 6]])
    expected = [[1, 7, 8, 2, 2, 5, 2, 9], [1, 7, 8, 2, 2, 2, 9], [1, 7, 8, 2, 2, 5, 6, 2, 9]]
    assert [row.ids.tolist() for row in rows] == expected
    assert [row.ids.dtype for row in rows] == [np.int32] * 3
    assert [row.second for row in rows] == [5 if segments else 0] * 3  # at the document, if the model is told


def test_places() -> None:
    assert (FRAME.special_tokens, FRAME.query_at, FRAME.document_at(2)) == (5, 1, 5)
    assert FRAME.rows([7, 8], [[5]])[0].ids[FRAME.document_at(2)] == 5
    assert not FRAME.segments  # unless a family says so
