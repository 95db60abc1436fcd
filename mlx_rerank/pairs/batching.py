"""Pure functions that group token sequences into padded batches and put results back in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mlx_rerank.pairs.arguments import require_whole_number
from mlx_rerank.pairs.encoded import Row

BATCH_OVERHEAD = 32  # tokens that could be computed in the time it takes to set up one more batch
PADDING_SHARE = 0.03  # share of a large batch that may be padding


class Batch(NamedTuple):
    """Rows that are computed together, padded on the right to the longest.

    Args:
        input_ids: int32 [B, L].
        attention_mask: bool [B, L], True on real tokens; None where all are real.
        segments: bool [B, L], True on real tokens of the second segment; None where the family knows no segments.
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray | None = None
    segments: np.ndarray | None = None

    @property
    def tokens(self) -> int:
        """Real tokens of all rows."""
        return self.input_ids.size if self.attention_mask is None else int(self.attention_mask.sum())


@dataclass(frozen=True)
class Batching:
    """How rows are put into batches, and batches into groups that run side by side.

    Args:
        token_budget: most padded tokens of a batch, rows x longest row.
        max_rows: most rows of a batch; no limit if None.
        side_by_side: most batches of a group.
    """

    token_budget: int
    max_rows: int | None = None
    side_by_side: int = 1

    def __post_init__(self) -> None:
        """Raise InputError where the budget or the row limit is not a whole number of at least one."""
        for name, value in (("token_budget", self.token_budget), ("max_rows", self.max_rows)):
            if value is not None:
                object.__setattr__(self, name, require_whole_number(name, value))

    def groups(self, lengths: np.ndarray) -> list[list[np.ndarray]]:
        """Return groups of batches, the longest rows first; a batch is an array of places in `lengths`."""
        plan = self.plan(lengths)
        return [plan[start : start + self.side_by_side] for start in range(0, len(plan), self.side_by_side)]

    def plan(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Group rows into batches of similar length, longest first.

        A batch ends when it is full, or when the padding with one more row would cost more than a batch of its own. A
        row that is longer than the budget is a batch of its own, because it must be scored too.

        Args:
            lengths: integers [N], tokens of each row.

        Returns:
            One int64 array of places in `lengths` per batch. Together they hold every place once.
        """
        order = np.argsort(-np.asarray(lengths), kind="stable")
        descending = np.asarray(lengths)[order]
        batches, start = [], 0
        while start < len(order):
            rows = self.rows_that_fit(descending[start:])
            batches.append(order[start : start + rows])
            start += rows
        return batches

    def most_rows(self, longest: int) -> int:
        """Return how many rows of a length a batch may have, whatever their padding."""
        return max(1, min(self.token_budget // longest, self.token_budget if self.max_rows is None else self.max_rows))

    def rows_that_fit(self, descending: np.ndarray) -> int:
        """Return how many of the first rows make one batch.

        Args:
            descending: integers [N], tokens of each row, the longest first; at least one.
        """
        longest = int(descending[0])
        candidates = descending[: self.most_rows(longest)]
        padding = np.cumsum(longest - candidates)
        padded = longest * np.arange(1, len(candidates) + 1)
        fits = padding <= np.maximum(BATCH_OVERHEAD, padded * PADDING_SHARE)
        return len(candidates) if fits.all() else int(np.argmin(fits))


def pad(rows: Sequence[Row], pad_token_id: int) -> Batch:
    """Stack rows into one batch.

    Args:
        rows: at least one.
        pad_token_id: what fills the rest of a row.
    """
    lengths = np.array([row.tokens for row in rows])
    places = np.arange(lengths.max())
    mask = places < lengths[:, None]
    input_ids = np.full(mask.shape, pad_token_id, dtype=np.int32)
    input_ids[mask] = np.concatenate([row.ids for row in rows])
    second = np.array([row.second for row in rows])
    segments = mask & (places >= second[:, None]) if second.any() else None
    return Batch(input_ids, None if mask.all() else mask, segments)
