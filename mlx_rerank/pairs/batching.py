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
        token_budget: most padded tokens of a batch.
        max_rows: most rows of a batch; no limit if None.
        side_by_side: most batches of a group.
    """

    token_budget: int
    max_rows: int | None = None
    side_by_side: int = 1

    def groups(self, lengths: np.ndarray) -> list[list[np.ndarray]]:
        """Return groups of batches, the longest rows first; a batch is an array of places in `lengths`.

        Raises:
            InputError: as `plan_batches`.
        """
        plan = plan_batches(lengths, self.token_budget, self.max_rows)
        return [plan[start : start + self.side_by_side] for start in range(0, len(plan), self.side_by_side)]

    def most_rows(self, longest: int) -> int:
        """Return how many rows of a length a batch may have, whatever their padding."""
        return most_rows(longest, self.token_budget, self.max_rows)

    def rows_that_fit(self, descending: np.ndarray) -> int:
        """Return how many of the rows, the longest first, make the first batch."""
        return rows_that_fit(descending, self.token_budget, self.max_rows)


def plan_batches(lengths: np.ndarray, token_budget: int, max_rows: int | None = None) -> list[np.ndarray]:
    """Group sequences into batches of similar length, longest first.

    A batch ends when it is full, or when the padding with one more row would cost more than a batch of its own.

    Args:
        lengths: integers [N], tokens of each sequence.
        token_budget: most padded tokens of a batch, rows x longest row. A longer sequence is a batch of its own,
            because it must be scored too.
        max_rows: most rows of a batch; no limit if None.

    Returns:
        One int64 array of places in `lengths` per batch. Together they hold every place once.

    Raises:
        InputError: the budget or the row limit is not a whole number of at least one.
    """
    for name, value in (("token_budget", token_budget), ("max_rows", max_rows)):
        if value is not None:
            require_whole_number(name, value)
    order = np.argsort(-np.asarray(lengths), kind="stable")
    descending = np.asarray(lengths)[order]
    batches, start = [], 0
    while start < len(order):
        rows = rows_that_fit(descending[start:], token_budget, max_rows)
        batches.append(order[start : start + rows])
        start += rows
    return batches


def most_rows(longest: int, token_budget: int, max_rows: int | None) -> int:
    """Return how many rows of a length a batch may have, whatever their padding."""
    return max(1, min(token_budget // longest, max_rows or token_budget))


def rows_that_fit(descending: np.ndarray, token_budget: int, max_rows: int | None) -> int:
    """Return how many of the first sequences make one batch.

    Args:
        descending: integers [N], tokens of each sequence, the longest first; at least one.
        token_budget: as for `plan_batches`.
        max_rows: as for `plan_batches`.
    """
    longest = int(descending[0])
    candidates = descending[: most_rows(longest, token_budget, max_rows)]
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
