"""From texts to token ids: each text tokenised once, pairs joined by id, truncated once, counted honestly."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from mlx_rerank.errors import CheckpointError, InputError
from mlx_rerank.pairs.arguments import require_unicode
from mlx_rerank.pairs.encoded import EncodedPairs, Row
from mlx_rerank.pairs.frames import Frame
from mlx_rerank.pairs.limits import Limits, Side
from mlx_rerank.pairs.tokenizing import failures_of, largest_id
from mlx_rerank.pairs.windows import Windows

_CHUNK, _CHARACTERS = 512, 10**6  # texts per call of the tokenizer, and about how long; Ctrl-C is heard between calls
# Characters that tokenizers write out (NFKC). All others become 2.5 characters a byte at most, which costs no more than
# the worst of plain text does: tests/unit/pairs/test_weight.py tries them all.
_PHRASES = {"\ufdfa": 18, "\ufdfb": 8}


def weight(text: str) -> int:
    """Return how many characters are tokenised for a text: some stand for whole phrases."""
    if text.isascii():
        return len(text)
    return len(text) + sum((length - 1) * text.count(phrase) for phrase, length in _PHRASES.items())


class PairEncoder:
    """Turns (query, document) pairs into the rows of token ids that a model reads."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        frame: Frame,
        vocab_size: int,
        truncation_side: Side = "right",
        name: object = "tokenizer.json",
    ) -> None:
        """Take over a tokenizer, turning off any truncation and padding of its own.

        Args:
            tokenizer: of the model.
            frame: what surrounds the two texts in a row.
            vocab_size: rows of the model's table of word embeddings.
            truncation_side: where texts are cut, unless limits say otherwise.
            name: of the tokenizer's file, for errors.

        Raises:
            CheckpointError: the tokenizer or the frame has an id that is not in the table.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        largest = max(largest_id(tokenizer), *frame.start, *frame.middle, *frame.end, frame.pad, frame.hidden)
        if largest >= vocab_size:
            raise CheckpointError(f"{name} has a token of id {largest}; the model's table has {vocab_size} rows")
        self.frame = frame
        self._tokenizer, self._name = tokenizer, name
        self._truncation_side: Side = truncation_side

    @property
    def tokenizer(self) -> Tokenizer:
        """A copy of the tokenizer, neither cutting nor padding, that may be changed."""
        return deepcopy(self._tokenizer)

    @property
    def pad_token_id(self) -> int:
        """What fills rows up to the length of the longest."""
        return self.frame.pad

    def cuts_left(self, limits: Limits) -> bool:
        """Tell whether texts that are too long lose their beginning."""
        side = self._truncation_side if limits.truncation_side is None else limits.truncation_side
        return side == "left"

    def tokens(self, text: str, before: str = "", after: str = "") -> tuple[list[int], np.ndarray]:
        """Return a text's token ids without special tokens, and the characters of each, int64 [T, 2].

        Args:
            text: of a query or document.
            before: text that is tokenised as one with it; its characters have negative places.
            after: text that is tokenised as one with it.

        Raises:
            InputError: it is not valid Unicode.
            CheckpointError: the tokenizer fails on it.
        """
        require_unicode(text)
        with failures_of(self._name):  # a batch of one, as encode holds up other threads
            (encoding,) = self._tokenizer.encode_batch([before + text + after], add_special_tokens=False)
        return encoding.ids, _offsets(encoding) - len(before)

    def split(self, limits: Limits, query_length: int, document_length: int) -> tuple[int, int]:
        """Return how many tokens of a query and of a document are kept, with those of texts around them.

        Raises:
            InputError: a query would lose its end, and with it what tells a language model where the document begins.
        """
        room = limits.room(self.frame.special_tokens)
        kept = limits.split(query_length, document_length, room, whole_query=self.frame.templated)
        if self.frame.templated and kept[0] < min(query_length, room):
            raise InputError(
                f"a query takes {query_length} tokens with its prompt, the limits leave it {kept[0]}, and this "
                "model cannot read a part of it: shorten the query, or use a larger max_length or query_max_length"
            )
        return kept

    def encode(
        self,
        pairs: Sequence[tuple[str, str]],
        limits: Limits,
        known: dict[str, list[int]] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> EncodedPairs:
        """Tokenise, truncate and join pairs as the model's frame says.

        Args:
            pairs: (query, document) texts.
            limits: lengths to cut to.
            known: token ids of texts that need not be tokenised again. Afterwards it holds only the texts of these
                pairs.
            check: called between parts of the work; what it raises ends it.

        Raises:
            InputError: a text is not valid Unicode; the limits leave no room for text; or a pair is too long, and the
                limits make that an error.
            CheckpointError: the tokenizer fails on a text.

        Source: FlagEmbedding 1.4.2 BaseReranker.compute_score_single_gpu; tests/parity/test_flagembedding.py.
        """
        limits.room(self.frame.special_tokens)
        known = {} if known is None else known
        around = [(self.frame.around_query(query), self.frame.around_document(document)) for query, document in pairs]
        texts = dict.fromkeys(text for pair in around for text in pair)
        ids = {text: known[text] for text in texts if text in known}
        ids |= self._tokenise([text for text in texts if text not in ids], check)
        known.clear()
        known.update(ids)
        splits = [self.split(limits, len(ids[query]), len(ids[document])) for query, document in around]
        cut = [pair[1] for pair, (_, own), (_, kept) in zip(pairs, around, splits, strict=True) if kept < len(ids[own])]
        from_left = self.cuts_left(limits)
        rows = _Rows(limits, from_left, self.frame.special_tokens, self._places(cut))
        for pair, (query, document), split in zip(pairs, around, splits, strict=True):
            q, d = ids[query], ids[document]
            windows = rows.add(pair, (len(q), len(d)), split)
            kept = q[len(q) - split[0] :] if from_left and not self.frame.templated else q[: split[0]]
            rows.sequences += self.frame.rows(kept, [d[a:b] for a, b in windows])
        return rows.encoded()

    def _tokenise(self, texts: list[str], check: Callable[[], None]) -> dict[str, list[int]]:
        """Return the ids of distinct texts, without special tokens."""
        ids = {}
        for chunk in chunks(texts):
            check()
            for text in chunk:
                if not text.isascii():
                    require_unicode(text)
            with failures_of(self._name):
                encodings = self._tokenizer.encode_batch_fast(chunk, add_special_tokens=False)
            ids.update((text, encoding.ids) for text, encoding in zip(chunk, encodings, strict=True))
        return ids

    def _places(self, documents: Sequence[str]) -> dict[str, np.ndarray]:
        """Return where the tokens of documents are; only documents that are cut need this."""
        texts, places, before = list(dict.fromkeys(documents)), {}, len(self.frame.before_document)
        for chunk in chunks(texts):
            given = [self.frame.around_document(text) for text in chunk]
            with failures_of(self._name):
                encodings = self._tokenizer.encode_batch(given, add_special_tokens=False)
            offsets = [np.maximum(_offsets(encoding) - before, 0) for encoding in encodings]
            places.update(zip(chunk, offsets, strict=True))
        return places


class _Rows:
    """The rows of pairs, as they are put together."""

    def __init__(self, limits: Limits, from_left: bool, special_tokens: int, offsets: Mapping[str, np.ndarray]) -> None:
        """Start without rows."""
        self._limits, self._from_left = limits, from_left
        self._special_tokens, self._offsets = special_tokens, offsets
        self.sequences: list[Row] = []
        self._owners: list[int] = []
        self._spans: list[tuple[int, int]] = []
        self._truncated: list[int] = []
        self._share_read: list[float] = []

    def add(self, pair: tuple[str, str], lengths: tuple[int, int], split: tuple[int, int]) -> list[tuple[int, int]]:
        """Note a pair.

        Args:
            pair: its texts.
            lengths: their tokens.
            split: how many of these are kept, as `Limits.split` says.

        Returns:
            For each row, the first document token that it holds, and the one after the last.
        """
        limits, (query, document), (q, d), (kept_q, kept_d) = self._limits, pair, lengths, split
        form = limits.long_documents if kept_d < d else "truncate"
        read = kept_d
        if isinstance(form, Windows):
            read = d if limits.document_max_length is None else min(d, limits.document_max_length)
        first = d - read if self._from_left else 0
        windows = [(first, first + read)]
        if kept_d < d:
            offsets = self._offsets[document]
            if isinstance(form, Windows):
                found = form.cut(document, offsets[first : first + read], kept_d)
                windows = [(first + a, first + b) for a, b in found]
            self._spans += [_span(document, offsets, a, b) for a, b in windows]
        else:
            self._spans.append((0, len(document)))
        cut = q - kept_q + d - read
        if cut and limits.long_documents == "error":
            raise InputError(
                f"the pair ({query[:40]!r}, {document[:40]!r}) has {q + d + self._special_tokens} tokens, more than "
                f"max_length {limits.max_length} allows: shorten it, or pass long_documents='truncate' or 'windows'"
            )
        self._owners += [len(self._truncated)] * len(windows)
        self._truncated.append(cut)
        self._share_read.append(read / d if d else 1.0)
        return windows

    def encoded(self) -> EncodedPairs:
        """Return the rows, each distinct sequence once."""
        places: dict[bytes, int] = {}
        inverse = [places.setdefault(row.key, len(places)) for row in self.sequences]
        distinct = dict(zip(inverse, self.sequences, strict=True))
        columns = (inverse, self._owners, np.reshape(self._spans, (-1, 2)), self._truncated)
        return EncodedPairs(
            list(distinct.values()),
            *(np.array(column, dtype=np.int64) for column in columns),
            share_read=np.array(self._share_read, dtype=np.float64),
        )


def chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut texts into parts that take about as long to tokenise."""
    start = characters = 0
    for i, text in enumerate(texts):
        if i - start == _CHUNK or characters > _CHARACTERS:
            yield texts[start:i]
            start, characters = i, 0
        characters += weight(text)
    if start < len(texts):
        yield texts[start:]


def _offsets(encoding: Any) -> np.ndarray:
    """Return where each token's characters begin and end, int64 [T, 2]."""
    return np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)


def _span(text: str, offsets: np.ndarray, first: int, end: int) -> tuple[int, int]:
    """Return the characters of some tokens; those before a document's first and after its last token count too."""
    if first == end:
        return 0, 0
    begin = int(offsets[first, 0]) if first else 0
    stop = len(text) if end == len(offsets) else int(offsets[end - 1, 1])
    return begin, max(begin, stop)
