"""How long pairs may be, and what becomes of documents that do not fit."""

from dataclasses import dataclass
from typing import Literal

from mlx_rerank.errors import InputError
from mlx_rerank.pairs.arguments import require_whole_number
from mlx_rerank.pairs.switches import require_boolean
from mlx_rerank.pairs.windows import Windows

LongDocuments = Literal["truncate", "error"] | Windows
Side = Literal["right", "left"]
_LEAST_FOR_WINDOWS = 64  # tokens of a pair; then the longest query leaves 15 of them to a window


@dataclass(frozen=True)
class Limits:
    """How long a pair and its query may be, in tokens.

    Args:
        max_length: of the whole pair, special tokens included.
        query_max_length: of the query alone. Three quarters of max_length if None, as in FlagEmbedding. Never more
            than what the special tokens leave.
        document_max_length: of the document alone; what the query leaves if None.
        long_documents: what becomes of a document that does not fit: its end is not read, it is read in windows, or an
            error says so. Queries are always truncated, except with "error".
        longest_first: cut the longer text to the length of the other, then both alike, as the `tokenizers` library and
            sentence-transformers do. No text has a limit of its own then, and windows are not read.
        truncation_side: where tokens of a text that is too long are cut off; the tokenizer's own side if None.
    """

    max_length: int
    query_max_length: int | None = None
    document_max_length: int | None = None
    long_documents: LongDocuments = "truncate"
    longest_first: bool = False
    truncation_side: Side | None = None

    def __post_init__(self) -> None:
        """Raise InputError for an invalid length, or for limits that exclude one another."""
        object.__setattr__(self, "max_length", require_whole_number("max_length", self.max_length, least=0))
        object.__setattr__(self, "longest_first", require_boolean("longest_first", self.longest_first))
        if isinstance(self.long_documents, Windows) and self.max_length < _LEAST_FOR_WINDOWS:
            raise InputError(
                f"max_length {self.max_length} is too little to read documents in windows: "
                f"use {_LEAST_FOR_WINDOWS} or more"
            )
        for name in ("query_max_length", "document_max_length"):
            if getattr(self, name) is not None:
                number = require_whole_number(name, getattr(self, name))
                object.__setattr__(self, name, number)  # numpy's integers do not go into the key of a score cache
        if self.truncation_side not in (None, "right", "left"):
            raise InputError(f"truncation_side must be 'right', 'left' or None, not {self.truncation_side!r}")
        texts = (self.query_max_length, self.document_max_length)
        if self.longest_first and (texts != (None, None) or isinstance(self.long_documents, Windows)):
            raise InputError(
                "longest_first says how much is kept of each text: "
                "leave out query_max_length and document_max_length, and do not read documents in windows"
            )

    @property
    def best(self) -> int:
        """Over how many of a document's windows the mean is taken; 1 if it is not read in windows."""
        return self.long_documents.best if isinstance(self.long_documents, Windows) else 1

    def room(self, special_tokens: int) -> int:
        """Return how many tokens of a pair are left for its two texts.

        Args:
            special_tokens: how many the model's frame adds to every pair.

        Raises:
            InputError: no token is left.
        """
        if self.max_length <= special_tokens:
            raise InputError(
                f"max_length {self.max_length} leaves no room for text: "
                f"{special_tokens} tokens of every pair are special, so use a larger value"
            )
        return self.max_length - special_tokens

    def split(
        self, query_length: int, document_length: int, room: int, *, whole_query: bool = False
    ) -> tuple[int, int]:
        """Return how many tokens of a query and of a document are kept: the query's share first, then the rest.

        Args:
            query_length: tokens of the query.
            document_length: tokens of the document.
            room: most tokens of both, as `room` says.
            whole_query: whether the query keeps all that fits, unless it has a limit of its own.

        Source: with longest_first, tokenizers 0.23 `truncate_encodings`; compared in tests/unit/pairs/test_encoder.py.
        """
        if self.longest_first:
            half = (room + (query_length > document_length)) // 2  # if odd, the longer text gets one more
            wanted = max(half, room - document_length)
        else:
            usual = room if whole_query else self.max_length * 3 // 4
            wanted = usual if self.query_max_length is None else self.query_max_length
        windows = isinstance(self.long_documents, Windows)
        query = min(query_length, wanted, room * 3 // 4 if windows else room)
        document = min(document_length, room - query)
        return query, document if self.document_max_length is None else min(document, self.document_max_length)


def parse_long_documents(value: LongDocuments | str) -> LongDocuments:
    """Return how long documents are read; "windows" stands for the default `Windows()`.

    Raises:
        InputError: the value is none of these.
    """
    if value in ("truncate", "error") or isinstance(value, Windows):
        return value
    if value != "windows":
        raise InputError(f"long_documents must be 'truncate', 'windows', 'error' or a Windows, not {value!r}")
    return Windows()


def checked_length(max_length: int, longest: int, special_tokens: int) -> int:
    """Return max_length.

    Args:
        max_length: most tokens of a pair, special ones included, as a caller wants it.
        longest: the most that the model can read.
        special_tokens: how many its frame adds to every pair.

    Raises:
        InputError: the model has no positions for it, or it leaves no room for text.
    """
    max_length = require_whole_number("max_length", max_length, least=0)
    if max_length > longest:
        raise InputError(
            f"max_length {max_length} exceeds this model's limit of {longest} tokens: "
            "use a smaller value, or a model with more positions"
        )
    Limits(max_length).room(special_tokens)
    return max_length
