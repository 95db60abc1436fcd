"""What comes back: frozen dataclasses that every path and every shell shares, made from logits."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from mlx_rerank.errors import InputError, NonFiniteScoreError
from mlx_rerank.models.mapping import ScoreMapping
from mlx_rerank.pairs.arguments import Document, require_whole_number
from mlx_rerank.pairs.switches import require_boolean

logger = logging.getLogger("mlx_rerank")


@dataclass(frozen=True)
class RankedDocument:
    """One document of a ranking.

    Args:
        index: its position in the caller's list.
        score: higher is more relevant; in 0..1 unless raw scores were asked for.
        document: what the caller passed, untouched.
        truncated_tokens: tokens of the query and this document that the model did not see.
        span: the characters of its text that the score covers, from the first to the one after the last: all of them;
            those that were read, if its end was cut; or those of the best window, if it was read in windows.
    """

    index: int
    score: float
    document: Document
    truncated_tokens: int
    span: tuple[int, int]


@dataclass(frozen=True)
class Selection:
    """Which documents of a ranking are returned, and how their scores are given.

    Args:
        top_n: how many at most; all if None.
        threshold: the lowest score, in 0..1 or a logit as raw_scores says; any if None.
        raw_scores: scores are logits.
    """

    top_n: int | None
    threshold: float | None
    raw_scores: bool

    def __post_init__(self) -> None:
        """Raise InputError for a top_n below one, a threshold that no score can be compared with, or a wrong switch."""
        require_boolean("raw_scores", self.raw_scores)
        if self.top_n is not None:
            require_whole_number("top_n", self.top_n)
        least = self.threshold
        if least is None:
            return
        if not isinstance(least, Real) or isinstance(least, bool) or not -math.inf < least < math.inf:
            raise InputError(f"threshold must be a finite number, or None, not {least!r}")
        if not self.raw_scores and not 0 <= least <= 1:
            raise InputError(f"threshold {least} is not in 0..1, where scores are; a logit needs raw scores")


@dataclass(frozen=True)
class ScoredPair:
    """One pair of a stream.

    Args:
        index: its place in what the caller gave.
        score: higher is more relevant; in 0..1 unless raw scores were asked for.
        truncated_tokens: its tokens that the model did not see.
        span: the characters of its document that the score covers, as in `RankedDocument`.
    """

    index: int
    score: float
    truncated_tokens: int
    span: tuple[int, int]


@dataclass(frozen=True)
class PairLogits:
    """What the model says of each pair, in the caller's order.

    Args:
        logits: float32 [N], unbounded.
        truncated_tokens: int64 [N], tokens of each pair that the model did not see.
        spans: int64 [N, 2], the characters of each document that its logit covers, as in `RankedDocument`.
        mapping: the model's, of logits to scores.
    """

    logits: np.ndarray
    truncated_tokens: np.ndarray
    spans: np.ndarray
    mapping: ScoreMapping

    def scores(self, raw: bool = False) -> np.ndarray:
        """Return the score of each pair, in 0..1, float32 [N]; the logits if raw.

        Raises:
            InputError: raw is no boolean.
        """
        return self.logits if require_boolean("raw", raw) else self.mapping(self.logits)

    def ranking(self, documents: Sequence[Document], wanted: Selection) -> list[RankedDocument]:
        """Return the documents that are wanted, the best first, equal ones in the order given."""
        scores = self.scores(wanted.raw_scores).tolist()
        order = np.argsort(-self.logits, kind="stable")[: wanted.top_n].tolist()
        cut, spans = self.truncated_tokens.tolist(), self.spans.tolist()
        ranking = [RankedDocument(i, scores[i], documents[i], cut[i], tuple(spans[i])) for i in order]
        least = -math.inf if wanted.threshold is None else wanted.threshold
        return [result for result in ranking if result.score >= least]


def require_finite(
    logits: np.ndarray, pairs: Sequence[tuple[str, str]], hint: str, indices: Sequence[int] | None = None
) -> None:
    """Check that no NaN or infinity reaches a caller.

    Args:
        logits: float [N].
        pairs: whose logits they are.
        hint: what may be wrong and what to do about it, as a sentence without its full stop.
        indices: places of the pairs in the caller's list, if they are only part of it.

    Raises:
        NonFiniteScoreError: a logit is not finite; it names the first such pair.
    """
    bad = np.flatnonzero(~np.isfinite(logits))
    if len(bad):
        query, document = pairs[bad[0]]
        index, together = (bad[0], "") if indices is None else (indices[bad[0]], " computed together")
        raise NonFiniteScoreError(
            f"{len(bad)} of {len(pairs)} pairs{together} have a logit of NaN or infinity; the first is pair {index} "
            f"({query[:60]!r}, {document[:60]!r}), logit {logits[bad[0]]}. {hint}"
        )


def log_truncation(truncated_tokens: np.ndarray, max_length: int) -> None:
    """Log a warning where pairs were cut and the return value cannot say so."""
    cut = int(np.count_nonzero(truncated_tokens))
    if cut:
        logger.warning(
            "%d of %d pairs were cut to %d tokens; %d tokens were not read",
            cut, len(truncated_tokens), max_length, int(truncated_tokens.sum()),
        )  # fmt: skip
