"""Which words carried a score: how much the logit falls when each is hidden from the model (occlusion).

This needs nothing but logits, so it is exact in every dtype, with packed weights and mapped embeddings. Gradients would
not be: on a CPU `operations` computes 2 ** x by shifting bits.

Hidden means replaced by the token that the model's frame names. Nothing moves: the other tokens keep their positions,
and all rows have one length.
"""

import math
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mlx_rerank.errors import InputError
from mlx_rerank.models.mapping import ScoreMapping
from mlx_rerank.pairs.arguments import require_whole_number
from mlx_rerank.pairs.batching import Batching, pad
from mlx_rerank.pairs.encoded import Row
from mlx_rerank.pairs.encoder import PairEncoder
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.words import Word, words_of
from mlx_rerank.scoring.engine import Engine
from mlx_rerank.scoring.explanation import Explanation, Highlight
from mlx_rerank.scoring.results import require_finite
from mlx_rerank.scoring.stopping import Stop, Stopped

MAX_PASSES = 128
_PARTS = 32  # most parts that a part is divided into at once
_HINT = "An activation may have overflowed, or the weights are damaged: try dtype='float32'"


class _Part(NamedTuple):
    """Consecutive words of one text, and how much the logit falls when they are hidden."""

    words: Sequence[Word]
    weight: float


def explain(
    encoder: PairEncoder,
    engine: Engine,
    query: str,
    document: str,
    *,
    limits: Limits,
    batching: Batching,
    mapping: ScoreMapping,
    stop: Stop,
    max_passes: int = MAX_PASSES,
) -> Explanation:
    """Return the weight of each word of a pair: the pair's logit minus its logit with the word's tokens hidden.

    A word is what stands between spaces, punctuation included; in scripts without spaces it is a token. If a document
    has more words than half of max_passes, its sentences are weighed first, in at most a quarter of max_passes:
    neighbours are joined to fit. Then the part of most weight is divided into its sentences or words, again and again
    while passes are left. A part that was not divided keeps its weight as a whole. A query has a quarter of max_passes
    at first, and is divided likewise.

    Args:
        encoder: the tokeniser.
        engine: the model.
        query: what was asked.
        document: what was scored.
        limits: lengths to cut to. Only what was read is explained; if a document is read in windows, the best window.
        batching: how rows are put into batches.
        mapping: of logits to scores.
        stop: when to end before the work is done.
        max_passes: how often the pair is computed with something hidden, at most; each costs as much as a score. The
            default is enough for every word of some 100, and for the strongest ones of longer documents.

    Raises:
        InputError: a text is no str or not valid Unicode, the pair is longer than limits allow, or max_passes is not a
            whole number of at least 2.
        NonFiniteScoreError: the model produced NaN or infinity.
        StoppedError: it was time to end; it holds no results.

    Source: "Visualizing and Understanding Convolutional Networks" (Zeiler and Fergus 2014), section 4.2.
    """
    for name, text in (("query", query), ("document", document)):
        if not isinstance(text, str):
            raise InputError(f"{name} must be a text, not {type(text).__name__} {str(text)[:60]!r}")
    require_whole_number("max_passes", max_passes, least=2)
    work = _Occlusion(encoder, engine, (query, document), batching, mapping, stop)
    try:
        return work.explanation(limits, max_passes)
    except Stopped as stopped:
        message = f"{work.passes} of at most {max_passes} passes of an explanation were done {stopped.circumstances}"
        none = np.empty(0, np.int64)
        raise stopped.kind(message, none, np.empty(0, np.float32), none, np.empty((0, 2), np.int64)) from None


class _Occlusion:
    """The work on one pair."""

    def __init__(
        self,
        encoder: PairEncoder,
        engine: Engine,
        pair: tuple[str, str],
        batching: Batching,
        mapping: ScoreMapping,
        stop: Stop,
    ) -> None:
        """Take the work; arguments are those of `explain`."""
        self._encoder, self._engine, self._pair = encoder, engine, pair
        self._batching, self._mapping, self._stop = batching, mapping, stop
        self._row, self._logit = Row(np.empty(0, np.int32)), math.nan
        self.passes = 0  # done so far, with something hidden

    def explanation(self, limits: Limits, max_passes: int) -> Explanation:
        """Do the work and return the explanation."""
        encoded = self._encoder.encode([self._pair], limits)
        logits = self._logits(encoded.sequences)[encoded.inverse]
        best = int(logits.argmax())
        self._row, self._logit = encoded.sequences[encoded.inverse[best]], float(logits[best])
        begin, end = encoded.spans[best].tolist()
        asked, read = self._read(limits, begin, end)
        most = max_passes // 2 if len(read) <= max_passes // 2 else max_passes // 4
        parts = self._weigh([*_divide(asked, max_passes // 4 or 1), *_divide(read, most or 1)])
        while part := _next(parts, max_passes - self.passes):
            parts.remove(part)
            parts += self._weigh(_divide(part.words, _PARTS))
        parts.sort(key=lambda part: part.words[0].first)
        shown = [Highlight(p.words[0].start, p.words[-1].end, p.weight, len(p.words) > 1) for p in parts]
        of_query = sum(part.words[0] in asked for part in parts)
        return Explanation(
            *self._pair,
            score=float(self._mapping(logits[best])),
            logit=self._logit,
            query_highlights=tuple(shown[:of_query]),
            document_highlights=tuple(shown[of_query:]),
            truncated_tokens=int(encoded.truncated_tokens[0]),
            span=(begin, end),
        )

    def _read(self, limits: Limits, begin: int, end: int) -> tuple[list[Word], list[Word]]:
        """Return the words that the row holds, of the query and of the document from begin to end."""
        (query, document), frame = self._pair, self._encoder.frame
        q_ids, q_offsets = self._encoder.tokens(query, frame.query_text, frame.after_query)
        d_ids, d_offsets = self._encoder.tokens(document, frame.before_document)
        d_offsets = np.maximum(d_offsets, 0)
        q, _ = self._encoder.split(limits, len(q_ids), len(d_ids))
        first = len(q_ids) - q if self._encoder.cuts_left(limits) and not frame.templated else 0
        own = np.flatnonzero((q_offsets[:, 1] > 0) & (q_offsets[:, 0] < len(query))) if frame.templated else None
        asked = self._asked(q_offsets, first, first + q, own)
        start = frame.document_at(q)
        tokens = self._row.ids[start : self._row.tokens - len(frame.end)].tolist()
        # The row's first document token begins where the span begins, but several tokens may share that character.
        places = np.flatnonzero(d_offsets[:, 0] == begin).tolist()
        d = next((place for place in places if d_ids[place : place + len(tokens)] == tokens), 0)
        return asked, words_of(document, d_offsets[d : d + len(tokens)], (begin, end), start)

    def _asked(self, offsets: np.ndarray, first: int, last: int, own: np.ndarray | None) -> list[Word]:
        """Return the words of the query that the row holds.

        Args:
            offsets: int64 [T, 2], the query's characters of each token.
            first: token that is kept.
            last: the token after the last that is kept.
            own: tokens that have characters of the query; all if None.
        """
        query, place, whole = self._pair[0], self._encoder.frame.query_at, len(offsets)
        if own is not None:  # others are of texts around it
            begin, whole = (int(own[0]), int(own[-1]) + 1) if len(own) else (0, 0)
            first, last, place = begin, max(begin, min(last, whole)), place + begin
            offsets = np.clip(offsets, 0, len(query))
        start = int(offsets[first, 0]) if first and first < last else 0
        end = len(query) if last == whole else int(offsets[last - 1, 1]) if last > first else 0
        return words_of(query, offsets[first:last], (start, end), place)

    def _weigh(self, divided: Sequence[Sequence[Word]]) -> list[_Part]:
        """Hide each of some parts in turn."""
        rows = [Row(self._row.ids.copy(), self._row.second) for _ in divided]
        for row, words in zip(rows, divided, strict=True):
            row.ids[words[0].first : words[-1].last] = self._encoder.frame.hidden
        logits = self._logits(rows)
        self.passes += len(rows)
        return [_Part(words, self._logit - logit) for words, logit in zip(divided, logits.tolist(), strict=True)]

    def _logits(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the logits of rows, float32, all finite."""
        groups = self._batching.groups(np.array([row.tokens for row in rows], np.int64))
        batches = ([pad([rows[i] for i in batch], self._encoder.pad_token_id) for batch in group] for group in groups)
        logits = np.empty(len(rows), np.float32)
        with closing(self._engine.run(batches, self._stop)) as results:
            for group, found in zip(groups, results, strict=True):
                logits[np.concatenate(group)] = found
        require_finite(logits, [self._pair] * len(rows), _HINT)
        return logits


def _next(parts: Sequence[_Part], left: int) -> _Part | None:
    """Return the part to divide next: the one of most weight that the passes left suffice for."""
    fitting = [part for part in parts if len(part.words) > 1 and len(_divide(part.words, _PARTS)) <= left]
    return max(fitting, key=lambda part: part.weight, default=None)


def _divide(words: Sequence[Word], most: int) -> list[Sequence[Word]]:
    """Return the words one by one if there are not more than `most`, else as many sentences or groups of words."""
    starts = list(range(len(words)))
    if len(words) > most:
        sentences = [i for i, word in enumerate(words) if word.opens or not i]
        starts = sentences if len(sentences) > 1 else starts
    starts = starts[:: max(1, math.ceil(len(starts) / most))]
    return [words[a:b] for a, b in pairwise([*starts, len(words)])]
