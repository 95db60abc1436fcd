"""Pairs as token ids, on their way to a model and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_rerank.pairs.windows import combine


@dataclass(frozen=True, eq=False, slots=True)
class Row:
    """What a model reads at once, as token ids: a pair, or a query and one window of its document.

    Args:
        ids: int32 [tokens].
        second: the place where the second segment begins; 0 where the family of models knows no segments.
    """

    ids: np.ndarray
    second: int = 0

    @property
    def tokens(self) -> int:
        """Its length."""
        return len(self.ids)

    @property
    def key(self) -> bytes:
        """Bytes that are equal for rows that the model cannot tell apart: ids alone do not say where a query ends."""
        return self.second.to_bytes(4, "little") + self.ids.tobytes()


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs as token ids: a row for each pair or window of its document; equal rows share one sequence.

    Args:
        sequences: distinct rows.
        inverse: int64 [R], for each row its place in `sequences`.
        owners: int64 [R], for each row its place among the caller's pairs, 0 ... N - 1 without a gap.
        spans: int64 [R, 2], for each row, where its characters begin and end in the document.
        truncated_tokens: int64 [N], tokens of query and document that were cut.
        share_read: float64 [N], share of each document's tokens that was kept; 1 for a document without tokens.
    """

    sequences: list[Row]
    inverse: np.ndarray
    owners: np.ndarray
    spans: np.ndarray
    truncated_tokens: np.ndarray
    share_read: np.ndarray

    @classmethod
    def joined(cls, parts: "Sequence[EncodedPairs]") -> "EncodedPairs":
        """Join parts, at least one, in that order; a sequence that several parts have is kept once."""
        if len(parts) == 1:
            return parts[0]
        places: dict[bytes, int] = {}
        sequences: list[Row] = []
        inverse = []
        for part in parts:
            own = np.array([places.setdefault(row.key, len(places)) for row in part.sequences], dtype=np.int64)
            sequences += [row for row, place in zip(part.sequences, own, strict=True) if place >= len(sequences)]
            inverse.append(own[part.inverse])
        first = np.cumsum([0, *(len(part.truncated_tokens) for part in parts)])
        owners = [part.owners + start for part, start in zip(parts, first, strict=False)]
        columns = [[getattr(part, name) for part in parts] for name in ("spans", "truncated_tokens", "share_read")]
        return cls(sequences, *map(np.concatenate, (inverse, owners, *columns)))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each distinct sequence, int64."""
        return np.array([row.tokens for row in self.sequences], dtype=np.int64)

    @property
    def tokens(self) -> np.ndarray:
        """Tokens that the model reads for each pair, over all its rows, int64 [N]."""
        return np.add.reduceat(self.lengths[self.inverse], self.first_rows) if len(self.owners) else self.owners

    @property
    def first_rows(self) -> np.ndarray:
        """The place of each pair's first row, int64 [N]."""
        return np.searchsorted(self.owners, np.arange(len(self.truncated_tokens)))

    def combine(self, logits: np.ndarray, best: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits of the pairs, float32 [N], and the spans of their best windows, int64 [N, 2].

        Args:
            logits: float32 [len(sequences)].
            best: as for `Windows`.
        """
        rows = logits[self.inverse]
        if len(rows) == len(self.truncated_tokens):
            return rows, self.spans
        starts = self.first_rows
        found = [combine(part.tolist(), best) for part in np.split(rows, starts[1:])]
        places = starts + np.array([place for _, place in found])
        return np.array([logit for logit, _ in found], dtype=np.float32), self.spans[places]
