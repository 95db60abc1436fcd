r"""Frames: what surrounds the two texts of a pair in a row of token ids. Each family of models has its own.

Where a model reads a prompt, some of it is tokenised together with a text, because tokens may reach across the joint:
"?\n" is one. Such a text is cut on the right with what is around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlx_rerank.errors import InputError
from mlx_rerank.pairs.arguments import require_unicode
from mlx_rerank.pairs.encoded import Row

INSTRUCTION = "{instruction}"  # its place in a template


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
        before_query: text that is tokenised as one with the query; it may have a place for an instruction.
        after_query: text that is tokenised as one with the query.
        before_document: text that is tokenised as one with the document.
        instruction: what the model is told to do, if it is told.
    """

    start: tuple[int, ...]
    middle: tuple[int, ...]
    end: tuple[int, ...]
    pad: int
    hidden: int
    segments: bool = False
    before_query: str = ""
    after_query: str = ""
    before_document: str = ""
    instruction: str | None = None

    @property
    def templated(self) -> bool:
        """Whether texts are tokenised with others around them."""
        return bool(self.before_query or self.after_query or self.before_document)

    @property
    def query_text(self) -> str:
        """What stands before the query, with the instruction."""
        return self.before_query.replace(INSTRUCTION, self.instruction or "")

    def told(self, instruction: str) -> "Frame":
        """Return this frame with an instruction.

        Raises:
            InputError: it is no text, or the model reads none.
        """
        if not isinstance(instruction, str):
            raise InputError(f"instruction must be a text, not {type(instruction).__name__} {str(instruction)[:60]!r}")
        if self.instruction is None:
            raise InputError(f"this model reads no instruction, such as {instruction[:60]!r}: leave it out")
        require_unicode(instruction, "instruction: ")
        return replace(self, instruction=instruction)

    def around_query(self, query: str) -> str:
        """Return the text that is tokenised for a query."""
        return self.query_text + query + self.after_query

    def around_document(self, document: str) -> str:
        """Return the text that is tokenised for a document."""
        return self.before_document + document

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
