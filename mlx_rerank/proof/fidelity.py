"""How far scores are from those of a reference: as numbers, and as the rankings that people see."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from mlx_rerank.device.optional import imported
from mlx_rerank.models.mapping import SIGMOID, ScoreMapping

TOP = 10  # documents whose overlap is counted


@dataclass(frozen=True)
class Fidelity:
    """Agreement of two sets of logits for the same pairs.

    Args:
        pairs: how many were compared.
        max_logit: largest |delta logit|.
        mean_logit: mean |delta logit|.
        max_score: largest |delta score|, scores being what the model's mapping makes of logits.
        mean_score: mean |delta score|.
        tau: Kendall's tau-b of each query's ranking, averaged over queries; None without a query that ranks two.
        lowest_tau: that of the worst query.
        top10_overlap: share of the reference's ten best documents that are among the ten best, averaged over the
            queries with more than ten documents; None without such a query.
    """

    pairs: int
    max_logit: float
    mean_logit: float
    max_score: float
    mean_score: float
    tau: float | None
    lowest_tau: float | None
    top10_overlap: float | None


def compare(
    found: np.ndarray, expected: np.ndarray, queries: Sequence[Hashable], mapping: ScoreMapping = SIGMOID
) -> Fidelity:
    """Compare logits with a reference's.

    Args:
        found: float [N], at least one.
        expected: float [N], the reference's.
        queries: of each pair, N hashable values; pairs of the same query make up one ranking.
        mapping: of logits to scores.
    """
    logits = np.abs(found.astype(np.float64) - expected)
    scores = np.abs(mapping(found.astype(np.float64)) - mapping(expected.astype(np.float64)))
    taus, overlaps = [], []
    for places in _rankings(queries):
        a, b = found[places], expected[places]
        if len(np.unique(b)) > 1:
            taus.append(kendall_tau(a, b))
        if len(places) > TOP:
            overlaps.append(len(_best(a) & _best(b)) / TOP)
    return Fidelity(
        pairs=len(found),
        max_logit=float(logits.max()),
        mean_logit=float(logits.mean()),
        max_score=float(scores.max()),
        mean_score=float(scores.mean()),
        tau=float(np.mean(taus)) if taus else None,
        lowest_tau=float(min(taus)) if taus else None,
        top10_overlap=float(np.mean(overlaps)) if overlaps else None,
    )


def kendall_tau(found: np.ndarray, expected: np.ndarray) -> float:
    """Return Kendall's tau-b of two rankings of the same documents; 0 if one of them holds all documents equal.

    Source: scipy.stats.kendalltau.
    """
    result = imported("scipy.stats").kendalltau(found, expected)
    return 0.0 if np.isnan(result.statistic) else float(result.statistic)


def _rankings(queries: Sequence[Hashable]) -> list[np.ndarray]:
    """Return the places of each query's pairs."""
    places: dict[Hashable, list[int]] = {}
    for i, query in enumerate(queries):
        places.setdefault(query, []).append(i)
    return [np.array(group) for group in places.values()]


def _best(logits: np.ndarray) -> set[int]:
    """Return the places of the highest logits."""
    return set(np.argsort(-logits, kind="stable")[:TOP].tolist())
