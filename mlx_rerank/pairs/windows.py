"""Windows of a long document: where it is cut, and how its windows' logits give the document's."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_rerank.errors import InputError
from mlx_rerank.pairs.arguments import require_whole_number

_BREAKS = (  # a window may begin after these, the best last; each pattern takes time that is linear in the text
    re.compile(r"\s+"),
    re.compile(r"\n\s*"),
    re.compile(r"[.!?…]['\"’”»)\]]*\s+|[。！？｡][’”」』）]*\s*|[।॥؟۔]\s*"),  # sentences
    re.compile(r"\n[^\S\n]*\n\s*"),  # paragraphs
)
_PARAGRAPH = len(_BREAKS)


@dataclass(frozen=True)
class Windows:
    """How a document that does not fit is read: in windows, made of paragraphs if it has any.

    A paragraph is a window; while a window has less than an eighth of `length` tokens, the next paragraph is added.
    Text without a paragraph's end within max_length is cut at `length` tokens or before: between sentences if possible,
    else between lines or words. The next window then repeats the end of the last.

    Args:
        length: most document tokens of a window that is not made of whole paragraphs, as far as max_length allows.
            Cross-encoders are trained on passages of some 150 words, and tell these apart best.
        overlap: most tokens that a window shares with the one before, where they meet within a paragraph.
        best: the document's logit is the mean of this many of its windows' highest logits; 1 takes the highest.
    """

    length: int = 256
    overlap: int = 64
    best: int = 1

    def __post_init__(self) -> None:
        """Raise InputError for what is no number of tokens or windows."""
        for name, least in (("length", 16), ("overlap", 0), ("best", 1)):
            number = require_whole_number(f"{name} of windows", getattr(self, name), least)
            object.__setattr__(self, name, number)  # numpy's integers do not go into the key of a score cache
        if self.overlap > self.length // 2:
            raise InputError(f"overlap {self.overlap} is more than half of the windows' length {self.length}")

    def cut(self, text: str, offsets: np.ndarray, room: int) -> list[tuple[int, int]]:
        """Return the windows of a document, in its order; together they hold every token.

        Args:
            text: of the document.
            offsets: int64 [T, 2], the characters of each token.
            room: most tokens of a window.

        Returns:
            The first token of each window, and the one after its last.
        """
        size, T = min(self.length, room), len(offsets)
        least, overlap = (size + 7) // 8, min(self.overlap, size // 2)
        breaks = _breaks(text, offsets)
        paragraphs = np.flatnonzero(breaks == _PARAGRAPH)
        found: list[tuple[int, int]] = []
        start = end = 0
        while end < T:
            latest = start + (room if breaks[start] == _PARAGRAPH else size)
            first_cut = max(start + (size + 1) // 2, end + 1)
            end = int(paragraphs[np.searchsorted(paragraphs, min(max(start + least, end + 1), T))])
            if end > latest:
                end = first_cut + _best(breaks[first_cut : start + size + 1], last=True)
            if T - end < least and T - start <= room:  # what is left over says little alone
                end = T
            found.append((start, end))
            start = end
            if breaks[end] != _PARAGRAPH and overlap:
                start = max(end - overlap, found[-1][0] + 1)
                start += _best(breaks[start : max(end, start + 1)], last=False)
        return found or [(0, 0)]


def combine(logits: Sequence[float], best: int) -> tuple[float, int]:
    """Return the logit of a document, and the place of its best window.

    Args:
        logits: of its windows, at least one.
        best: how many of the highest the mean is taken over.

    Returns:
        The logit and the place. The logit is not finite if a window's is not.
    """
    if len(logits) == 1:
        return logits[0], 0
    unusable = [logit for logit in logits if not math.isfinite(logit)]
    if unusable:
        return unusable[0], 0
    highest = sorted(logits, reverse=True)[:best]
    return math.fsum(highest) / len(highest), logits.index(highest[0])


def _breaks(text: str, offsets: np.ndarray) -> np.ndarray:
    """Return how good it is to begin a window with each token, int8 [T + 1]: 0 is within a word."""
    ends = np.maximum.accumulate(offsets[:, 1])
    breaks = np.zeros(len(offsets) + 1, np.int8)
    for grade, pattern in enumerate(_BREAKS, 1):
        places = np.fromiter((match.end() for match in pattern.finditer(text)), np.int64)
        breaks[np.searchsorted(ends, places, side="right")] = grade
    breaks[[0, -1]] = _PARAGRAPH
    return breaks


def _best(breaks: np.ndarray, last: bool) -> int:
    """Return the place of the best break, the first or the last of several."""
    return len(breaks) - 1 - int(breaks[::-1].argmax()) if last else int(breaks.argmax())
