"""Where the words of a text begin, and which tokens belong to each."""

import re
import unicodedata
from typing import NamedTuple

import numpy as np

_SENTENCE_ENDS = tuple(".!?…。！？｡।॥؟۔")
_CLOSING = "\"'”’»)]」』）"
_NO_SPACES = re.compile(  # Thai, Lao, Tibetan; Burmese; Khmer; Chinese, Japanese; Yi; forms of full width; rare Chinese
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3000-\u312f\u31a0-\u9fff\ua000-\ua4cf\uf900-\ufaff\uff00-\uffef"
    "\U00020000-\U0003ffff]"
)
_LEADING_VOWELS = "เแโใไເແໂໃໄ"  # of Thai and Lao, written before the consonant that they follow
_GOING_ON = ("Mn", "Mc", "Me", "Cf", "Pc", "Pd", "Pe", "Pf", "Po")  # marks, and all punctuation but the opening kinds


class Word(NamedTuple):
    """A word that was read.

    Args:
        first: its first token's place in the row.
        last: the place after its last token's.
        start: where its characters begin in the text.
        end: where they end.
        opens: whether a sentence begins with it.
    """

    first: int
    last: int
    start: int
    end: int
    opens: bool


def words_of(text: str, offsets: np.ndarray, span: tuple[int, int], place: int) -> list[Word]:
    """Return the words of a text that the model read.

    Args:
        text: all of it.
        offsets: int64 [T, 2], the characters of each token that was read.
        span: the characters that were read.
        place: the first token's place in the row.
    """
    piece, offsets = text[slice(*span)], offsets - span[0]
    visible = np.array([not character.isspace() for character in piece], bool)
    if not len(offsets) or not visible.any():
        return []
    starts, owners = _owners(piece, offsets, visible)
    ends = [*starts[1:], len(piece)]
    words, opens = [], True
    for owner, first, count in zip(*np.unique(owners, return_index=True, return_counts=True), strict=True):
        start, stop = starts[owner], ends[owner]
        word = piece[start:stop].rstrip()
        characters = span[0] + start, span[0] + start + len(word)
        words.append(Word(place + int(first), place + int(first + count), *characters, opens))
        opens = word.rstrip(_CLOSING).endswith(_SENTENCE_ENDS) or "\n" in piece[start + len(word) : stop]
    return words


def _owners(text: str, offsets: np.ndarray, visible: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Return where words begin in a text, and which word each token belongs to.

    Args:
        text: in which words are found.
        offsets: int64 [T, 2], the characters of each token.
        visible: bool [len(text)], False for spaces; True at least once.
    """
    places = np.flatnonzero(visible)
    # A token begins at its first character that is no space, or at the next token's if it is nothing but space.
    heads = places[np.minimum(np.searchsorted(places, offsets[:, 0]), len(places) - 1)]
    begins = visible & ~np.concatenate([[False], visible[:-1]])
    for head in heads.tolist():
        begins[head] |= head > 0 and _may_begin(text[head - 1], text[head])
    for head, tail in zip(heads.tolist(), offsets[:, 1].tolist(), strict=True):
        begins[head + 1 : tail] = False  # no token belongs to two words
    starts = np.flatnonzero(begins)
    return starts.tolist(), np.searchsorted(starts, heads, side="right") - 1


def _may_begin(before: str, after: str) -> bool:
    """Tell whether a word may begin between two characters with no space between them, where a token begins."""
    if not (_NO_SPACES.match(before) or _NO_SPACES.match(after)):
        return False
    goes_on = unicodedata.category(after) in _GOING_ON
    return not (goes_on or before in _LEADING_VOWELS or unicodedata.category(before) in ("Ps", "Pi"))
