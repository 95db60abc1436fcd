"""One call's pairs on their way: read and tokenised a window ahead of the device, and handed on as they are scored."""

import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from operator import attrgetter

import numpy as np
from tqdm import tqdm

from mlx_rerank.errors import StoppedError
from mlx_rerank.models.mapping import ScoreMapping
from mlx_rerank.pairs.batching import Batch, Batching, pad
from mlx_rerank.pairs.encoded import EncodedPairs
from mlx_rerank.pairs.encoder import PairEncoder
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.windows import combine
from mlx_rerank.scoring.engine import Engine
from mlx_rerank.scoring.results import PairLogits, ScoredPair, require_finite
from mlx_rerank.scoring.stopping import Stop, Stopped

FIRST_WINDOW = 256  # pairs; few, since the device has nothing to do until they are tokenised
WINDOW = 1024  # pairs; enough for batches of like lengths: tests/unit/scoring/test_pipeline.py bounds the padding
_PROGRESS_DELAY = 1.0  # seconds before a progress bar nobody asked for appears

Pair = tuple[str, str]


@dataclass(frozen=True)
class Scored:
    """Pairs that are done.

    Args:
        indices: int64 [n], their places in what the caller gave.
        logits: float32 [n].
        truncated_tokens: int64 [n], tokens of each that the model did not see.
        spans: int64 [n, 2], characters of each document that its logit covers.
    """

    indices: np.ndarray
    logits: np.ndarray
    truncated_tokens: np.ndarray
    spans: np.ndarray


@dataclass(slots=True)
class _Open:
    """A pair whose rows are not all done.

    Args:
        index: its place in what the caller gave.
        texts: its query and document.
        truncated_tokens: that the model does not see.
        spans: characters of its document, for each row.
        logits: of its rows; NaN for those that are not done.
        missing: how many rows are not done.
    """

    index: int
    texts: Pair
    truncated_tokens: int
    spans: list[list[int]]
    logits: list[float]
    missing: int


@dataclass(frozen=True)
class _Window:
    """Consecutive pairs as token ids; `start` is the index of the first."""

    start: int
    pairs: Sequence[Pair]
    encoded: EncodedPairs


class Pipeline:
    """The work of one call.

    Until a call that gathers has ended, the results and, for each row, a digest of 16 bytes and the logit are kept, so
    that an equal row is not computed again. A stream keeps nothing of what it has yielded.
    """

    def __init__(
        self,
        encoder: PairEncoder,
        engine: Engine,
        pairs: Iterator[Pair],
        *,
        limits: Limits,
        batching: Batching,
        mapping: ScoreMapping,
        stop: Stop,
        total: int | None,
        hint: str,
    ) -> None:
        """Take what is to be done; `run` does it.

        Args:
            encoder: the tokeniser.
            engine: the model.
            pairs: two texts each, read a window at a time.
            limits: lengths to cut to.
            batching: how rows are put into batches.
            mapping: of logits to scores.
            stop: when to end before the work is done.
            total: how many pairs there are, where that is known.
            hint: what to do about a logit that is not finite.
        """
        self._encoder, self._engine, self._pairs = encoder, engine, pairs
        self._limits, self._batching, self._mapping = limits, batching, mapping
        self._stop, self._total, self._hint = stop, total, hint
        self._read = 0  # pairs
        self._ended = False
        self._failure: Exception | None = None  # of the caller's iterable
        self._text_ids: dict[str, list[int]] = {}  # of the last window's texts
        self._known: dict[bytes, float] = {}  # logits of the sequences that are done, by their digests
        self._waiting: dict[bytes, list[tuple[_Open, int]]] = {}  # for sequences not done: pairs and their rows
        self._ready: list[_Open] = []  # pairs whose sequences were done when they were read
        self._handed_over: deque[list[bytes]] = deque()  # digests of the sequences in each group that the engine has
        self._streaming = False
        self._count = 0  # of pairs that are done
        self._done = [_scored([], 1)]  # all of them; of a stream none
        self._exhausted = False

    @property
    def scored(self) -> Scored:
        """All that is done and kept so far, in the order of completion."""
        columns = ("indices", "logits", "truncated_tokens", "spans")
        return Scored(*(np.concatenate([getattr(part, column) for part in self._done]) for column in columns))

    def gather(self, show_progress: bool | None) -> PairLogits:
        """Do all the work, and return the results in the caller's order.

        Args:
            show_progress: a progress bar on stderr; on a terminal and after a second if None.

        Raises:
            RerankError: as `run`.
        """
        quiet = None if show_progress is None else not show_progress
        delay = _PROGRESS_DELAY if show_progress is None else 0.0
        with (
            closing(self.run()) as parts,
            tqdm(total=self._total, desc="Scoring", unit="pair", disable=quiet, delay=delay, leave=False) as bar,
        ):
            for part in parts:
                bar.update(len(part.indices))
        scored = self.scored
        order = np.argsort(scored.indices)
        columns = (scored.logits[order], scored.truncated_tokens[order], scored.spans[order])
        return PairLogits(*columns, self._mapping)

    def stream(self, raw_scores: bool) -> Generator[ScoredPair, None, None]:
        """Yield each pair as soon as it is scored; errors are those of `run`.

        Args:
            raw_scores: give logits.
        """
        self._streaming = True
        with closing(self.run()) as parts:
            for part in parts:
                scores = part.logits if raw_scores else self._mapping(part.logits)
                columns = (part.indices, scores, part.truncated_tokens)
                spans = map(tuple, part.spans.tolist())
                yield from map(ScoredPair, *(column.tolist() for column in columns), spans)

    def run(self) -> Generator[Scored, None, None]:
        """Yield pairs as they are done. If reading one fails, those before it come first.

        Raises:
            InputError: something is not a pair of texts; or what the caller's iterable raises.
            NonFiniteScoreError: the model produced NaN or infinity.
            StoppedError: it was time to end.
        """
        tokeniser = ThreadPoolExecutor(1, "mlx-rerank-tokeniser")
        try:
            windows = self._windows(tokeniser)
            while not self._exhausted:
                with closing(self._engine.run(self._groups(windows), self._stop)) as results:
                    for logits in results:
                        yield self._complete(self._handed_over.popleft(), logits)
                if self._ready:
                    yield self._complete([], np.empty(0, np.float32))
        except Stopped as stopped:
            raise self._error(stopped) from None
        finally:
            self._ended = True
            tokeniser.shutdown(wait=False, cancel_futures=True)
        if self._failure:
            raise self._failure

    def _windows(self, tokeniser: Executor) -> Iterator[_Window]:
        """Yield windows; the next one is tokenised while the caller works on this one."""
        pairs = self._next_pairs(FIRST_WINDOW)
        if self._stop.possible:  # then not in this thread: some texts take long
            window = self._stop.wait(tokeniser.submit(self._encode, 0, pairs))
        else:
            window = self._encode(0, pairs)
        while window and window.pairs:
            start, pairs = self._read, self._next_pairs(WINDOW)
            upcoming = tokeniser.submit(self._encode, start, pairs) if pairs else None
            yield window
            window = self._stop.wait(upcoming) if upcoming else None

    def _next_pairs(self, count: int) -> list[Pair]:
        """Read up to `count` pairs. If that fails, return those before, and keep the error for the end."""
        self._stop.check()
        pairs: list[Pair] = []
        try:
            pairs.extend(islice(self._pairs, count))
        except Exception as error:  # whatever the caller's iterable raises
            self._failure, self._pairs = error, iter(())
        self._read += len(pairs)
        return pairs

    def _encode(self, start: int, pairs: Sequence[Pair]) -> _Window:
        """Tokenise a window, except for texts that the window before has too."""
        return _Window(start, pairs, self._encoder.encode(pairs, self._limits, self._text_ids, self._check))

    def _check(self) -> None:
        """Go on tokenising, unless nobody waits for it any more: Python would, at its end."""
        if self._ended:
            raise CancelledError
        self._stop.check()

    def _groups(self, windows: Iterator[_Window]) -> Iterator[list[Batch]]:
        """Yield padded batches, until a window holds nothing new: then pairs that are ready must be handed on first."""
        for window in windows:
            keys, new = self._admit(window)
            if not new:
                return
            sequences = [window.encoded.sequences[place] for place in new]
            for group in self._batching.groups(np.array([row.tokens for row in sequences])):
                self._handed_over.append([keys[new[i]] for batch in group for i in batch])
                yield [pad([sequences[i] for i in batch], self._encoder.pad_token_id) for batch in group]
        self._exhausted = True

    def _admit(self, window: _Window) -> tuple[list[bytes], list[int]]:
        """Note which pairs wait for which sequences; return the digests of all, and the places of those to compute."""
        encoded = window.encoded
        keys = [blake2b(row.key, digest_size=16).digest() for row in encoded.sequences]
        new = [place for place, key in enumerate(keys) if key not in self._known and key not in self._waiting]
        spans, cut = encoded.spans.tolist(), encoded.truncated_tokens.tolist()
        starts = [*encoded.first_rows.tolist(), len(spans)]
        places = encoded.inverse.tolist()
        for i, pair in enumerate(window.pairs):
            rows = slice(starts[i], starts[i + 1])
            found = [self._known.get(keys[place]) for place in places[rows]]
            logits = [math.nan if logit is None else logit for logit in found]
            opened = _Open(window.start + i, pair, cut[i], spans[rows], logits, found.count(None))
            if not opened.missing:
                self._ready.append(opened)
            for row, (place, logit) in enumerate(zip(places[rows], found, strict=True)):
                if logit is None:
                    self._waiting.setdefault(keys[place], []).append((opened, row))
        return keys, new

    def _complete(self, keys: Sequence[bytes], logits: np.ndarray) -> Scored:
        """Return the pairs of a group that is done, and those that were ready."""
        done, self._ready = self._ready, []
        for key, logit in zip(keys, logits.tolist(), strict=True):
            if not self._streaming:
                self._known[key] = logit
            for pair, row in self._waiting.pop(key):
                pair.logits[row] = logit
                pair.missing -= 1
                if not pair.missing:
                    done.append(pair)
        done.sort(key=attrgetter("index"))  # as nothing else tells which of them was first
        scored = _scored(done, self._limits.best)
        require_finite(scored.logits, [pair.texts for pair in done], self._hint, scored.indices.tolist())
        self._count += len(done)
        if not self._streaming:
            self._done.append(scored)
        return scored

    def _error(self, stopped: Stopped) -> StoppedError:
        """Return the error that says what was scored."""
        scored = self.scored
        count = f"{self._count}" if self._total is None else f"{self._count} of {self._total}"
        message = f"{count} pairs were scored {stopped.circumstances}"
        return stopped.kind(message, scored.indices, scored.logits, scored.truncated_tokens, scored.spans)


def _scored(done: Sequence[_Open], best: int) -> Scored:
    """Return pairs whose rows are all done."""
    found = [combine(pair.logits, best) for pair in done]
    return Scored(
        np.array([pair.index for pair in done], dtype=np.int64),
        np.array([logit for logit, _ in found], dtype=np.float32),
        np.array([pair.truncated_tokens for pair in done], dtype=np.int64),
        np.array([pair.spans[place] for pair, (_, place) in zip(done, found, strict=True)], np.int64).reshape(-1, 2),
    )
