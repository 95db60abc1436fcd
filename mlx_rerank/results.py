"""What comes back: frozen dataclasses that every path and every shell shares."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Document = str | Mapping[str, Any]  # a mapping holds its text under "text"


@dataclass(frozen=True)
class RankedDocument:
    """One document of a ranking.

    Args:
        index: its position in the caller's list.
        score: higher is more relevant; in 0..1 unless raw scores were asked for.
        document: what the caller passed, untouched.
        truncated_tokens: tokens of the query and this document that the model did not see.
    """

    index: int
    score: float
    document: Document
    truncated_tokens: int


@dataclass(frozen=True)
class PairLogits:
    """What the model says of each pair, in the caller's order.

    Args:
        logits: float32 [N], unbounded.
        truncated_tokens: int64 [N], tokens of each pair that the model did not see.
    """

    logits: np.ndarray
    truncated_tokens: np.ndarray
