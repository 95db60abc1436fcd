"""Pure functions over measured times: medians with their spread, quantiles, growth, and whose turn it is."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """The median of repeated measurements, with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarise at least one value."""
        return cls(statistics.median(values), min(values), max(values))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies, linear between neighbours.

    Args:
        values: at least one.
        share: 0..1; 0.5 is the median.

    Source: numpy.quantile.
    """
    return float(np.quantile(values, share))


def ratios(times: Sequence[float], base: Sequence[float]) -> Spread:
    """Return how many times as long each round took as the same round of another: drift hits both alike."""
    return Spread.of([time / other for time, other in zip(times, base, strict=True)])


def plan_rounds(names: Sequence[str], rounds: int) -> list[list[str]]:
    """Return the order of each round: everybody once, and every round begins with the next name."""
    starts = [number % len(names) for number in range(rounds)] if names else []
    return [[*names[start:], *names[:start]] for start in starts]


def growth(values: Sequence[float], warm_up: int, window: int = 20) -> float:
    """Return by what share the values at the end are above those after the warm-up; 0.01 is one percent.

    Args:
        values: in the order measured, more than `warm_up`.
        warm_up: how many to leave out at the beginning.
        window: how many values each compared median covers, after the warm-up and at the end.
    """
    after = values[warm_up:]
    return statistics.median(after[-window:]) / statistics.median(after[:window]) - 1
