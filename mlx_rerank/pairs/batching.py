"""Pure functions that group token sequences into padded batches and put results back in order."""

from collections.abc import Sequence

import numpy as np

from mlx_rerank.pairs.arguments import require_whole_number

Batch = tuple[np.ndarray, np.ndarray | None]  # input_ids int32 [B, L], attention_mask bool [B, L]
BATCH_OVERHEAD = 32  # tokens that could be computed in the time that one more batch takes to set up
PADDING_SHARE = 0.03  # of a large batch that may be padding


def plan_batches(lengths: np.ndarray, token_budget: int, max_rows: int | None = None) -> list[np.ndarray]:
    """Group sequences into batches of similar length, longest first.

    A batch ends when it is full, or when one more row would bring its padding above what a batch of its own costs.

    Args:
        lengths: integers [N], tokens of each sequence.
        token_budget: most padded tokens of a batch, rows x longest row. A sequence longer than that is a batch of its
            own, because it has to be scored all the same.
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
    """Return how many sequences, from the first on, make one batch.

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


def pad(sequences: Sequence[np.ndarray], pad_token_id: int) -> Batch:
    """Stack sequences into one array, padded on the right to the longest.

    Args:
        sequences: int32 [tokens] each, at least one.
        pad_token_id: what fills the rest of a row.

    Returns:
        input_ids int32 [B, L], and attention_mask bool [B, L], True on real tokens; None where all are real.
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    mask = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_token_id, dtype=np.int32)
    input_ids[mask] = np.concatenate(sequences)
    return input_ids, None if mask.all() else mask
