"""Which texts of a group are kept, and what share of the target distribution each of them gets.

Sources: soft targets: Hinton et al. 2015 (arXiv 1503.02531); a bi-encoder as the teacher of a cross-encoder's scores
follows Hofstätter et al. 2020 (arXiv 2010.02666), where the roles are the other way round.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SIZE = 6  # texts of a group
_SCALE = 0.04  # difference of the teacher's scores that counts as much as an overlap of one


@dataclass(frozen=True)
class Draft:
    """A query and the texts to choose from.

    Args:
        kind: passage, sentence, cross or parallel.
        source: the set that it comes from.
        lang: of the query, and after a hyphen of the texts where that is another.
        query: what is asked.
        texts: those of the relevant passage first.
        right: how many those are.
        length: most tokens of a pair.
    """

    kind: str
    source: str
    lang: str
    query: str
    texts: list[str]
    right: int = 1
    length: int = 160


def choose(
    draft: Draft,
    overlap: Sequence[float],
    scores: Sequence[float] | None,
    rng: random.Random,
    soft: float,
    temperature: float,
) -> dict[str, Any]:
    """Return a group of at most SIZE texts, the positive first, with targets that sum to one.

    Args:
        draft: the query and its texts.
        overlap: of each text with the query, in words.
        scores: of each text by the teacher; None leaves the choice to the overlap, and the positive gets all.
        rng: chooses.
        soft: share of the teacher's distribution over all texts; the rest goes to those of the relevant passage.
        temperature: of the teacher's distribution.
    """
    marks = [s / _SCALE + o for s, o in zip(scores, overlap, strict=True)] if scores else overlap
    kept = _kept(marks, draft.right, rng)
    target = [1.0] + [0.0] * (len(kept) - 1)
    group: dict[str, Any] = {
        "kind": draft.kind,
        "source": draft.source,
        "lang": draft.lang,
        "query": draft.query,
        "texts": [draft.texts[i] for i in kept],
        "length": draft.length,
    }
    if scores:
        own = [scores[i] for i in kept]
        inside = [place for place, i in enumerate(kept) if i < draft.right]
        for place, share in zip(inside, _softmax([own[place] for place in inside], temperature / 2), strict=True):
            target[place] = share
        target = [(1 - soft) * t + soft * w for t, w in zip(target, _softmax(own, temperature), strict=True)]
        group["teacher"] = [round(score, 4) for score in own]
    return group | {"target": [round(share, 4) for share in target]}


def _kept(marks: Sequence[float], right: int, rng: random.Random) -> list[int]:
    """Return the best text of the relevant passage, two of its next three, and the best of the others."""
    kept = [0]
    if right > 1:
        best = max(range(right), key=marks.__getitem__)
        near = sorted((i for i in range(right) if i != best), key=marks.__getitem__)[-3:]
        kept = [best, *rng.sample(near, min(2, len(near)))]
    others = sorted(range(right, len(marks)), key=marks.__getitem__, reverse=True)
    return kept + others[: SIZE - len(kept)]


def _softmax(values: Sequence[float], temperature: float) -> list[float]:
    """Return a distribution."""
    top = max(values)
    powers = [math.exp((value - top) / temperature) for value in values]
    return [power / sum(powers) for power in powers]
