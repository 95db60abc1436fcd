"""Frames: what surrounds the two texts of a pair in a row of token ids. Each family of models has its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_rerank.pairs.encoded import Row


@dataclass(frozen=True)
class Frame:
    """The ids before, between and after the two texts of a pair.

    Args:
        start: before the query.
        middle: between query and document.
        end: after the document.
        pad: fills rows that are shorter than the longest of their batch.
        hidden: replaces tokens that are hidden from the model when words are explained.
        segments: whether the model is told where its second segment begins: at the document.
    """

    start: tuple[int, ...]
    middle: tuple[int, ...]
    end: tuple[int, ...]
    pad: int
    hidden: int
    segments: bool = False

    @property
    def special_tokens(self) -> int:
        """How many ids of a row belong to neither text."""
        return len(self.start) + len(self.middle) + len(self.end)

    @property
    def query_at(self) -> int:
        """The place of a query's first token in its row."""
        return len(self.start)

    def document_at(self, query_tokens: int) -> int:
        """Return the place of a document's first token, after a query of this many tokens."""
        return len(self.start) + query_tokens + len(self.middle)

    def rows(self, query: Sequence[int], documents: Sequence[Sequence[int]]) -> list[Row]:
        """Return a row for each part of a document, every one with the same query.

        Args:
            query: its token ids that are kept.
            documents: the token ids of each part.
        """
        head = [*self.start, *query, *self.middle]
        second = len(head) if self.segments else 0
        return [Row(np.array([*head, *ids, *self.end], dtype=np.int32), second) for ids in documents]
