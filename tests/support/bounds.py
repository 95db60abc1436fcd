"""How far apart two right answers may be: the package's own bounds, and what tests of scores and rankings need.

What the package promises in words is stricter in places than its bounds, and is tested as it is promised.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest

from mlx_rerank.proof.bounds import LAMBDA, UNIT, forward, gradient, logits, of_sum, product, rounded
from mlx_rerank.scoring.results import RankedDocument

__all__ = ["LAMBDA", "UNIT", "forward", "gradient", "logits", "of_sum", "product", "rounded"]

Id = TypeVar("Id")
COMPANY = 1e-5  # |delta logit| of trained weights by what is scored beside a pair, as Reranker's documentation promises
TINY = 1.25e-4  # the same for the tiny checkpoint, whose weights are far larger than trained ones: `logits` says so
SCORE = COMPANY / 4 + 2 * UNIT["float32"]  # the slope of the sigmoid is at most 1/4; and two scores are rounded


def near(value: float, *, raw: bool = False) -> Any:
    """Return what a score, or a logit if raw, of the same pair in another batch is equal to."""
    return pytest.approx(value, rel=0, abs=TINY if raw else TINY / 4 + 2 * UNIT["float32"])


def ranking(rows: Iterable[tuple[Id, Any]], *, raw: bool = False) -> list[tuple[Id, Any]]:
    """Return what the same ranking is equal to when it is made again, its order and nearly its scores.

    Args:
        rows: of a ranking, best first: whatever names a document, and its score. Two scores are the same, as those of
            one text are, or so far apart that rounding cannot exchange them.
        raw: whether the scores are logits.
    """
    rows = list(rows)
    apart([score for _, score in rows], raw=raw)
    return [(name, near(score, raw=raw)) for name, score in rows]


def again(results: Sequence[RankedDocument], *, raw: bool = False) -> list[RankedDocument]:
    """Return what the results of the same call are equal to when it is made again, in whatever company."""
    apart([result.score for result in results], raw=raw)
    return [replace(result, score=near(result.score, raw=raw)) for result in results]


def apart(scores: Sequence[float], *, raw: bool = False, logit: float = COMPANY) -> None:
    """Check that no rounding can change the order of scores, best first.

    Args:
        scores: to be as they are, or so far apart; the same ones are of the same text.
        raw: whether they are logits.
        logit: how far a logit may be off; a score is off by as much times the sigmoid's slope there, and rounded.
    """
    values = np.asarray(scores, dtype=np.float64)
    errors = np.full_like(values, logit) if raw else logit * values * (1 - values) + rounded(2, values)
    gaps = values[:-1] - values[1:]
    assert ((gaps == 0) | (gaps > errors[:-1] + errors[1:])).all(), f"ranked by chance: {scores}"
