"""From texts to token ids: each text tokenised once, pairs joined by id, truncated once, counted honestly."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from mlx_rerank.errors import CheckpointError, InputError
from mlx_rerank.pairs.arguments import require_unicode
from mlx_rerank.pairs.encoded import EncodedPairs, Row
from mlx_rerank.pairs.frames import Frame
from mlx_rerank.pairs.limits import Limits
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

    def __init__(self, tokenizer: Tokenizer, frame: Frame, vocab_size: int) -> None:
        """Take over a tokenizer, turning off any truncation and padding of its own.

        Args:
            tokenizer: of the model.
            frame: what surrounds the two texts in a row.
            vocab_size: rows of the model's table of word embeddings.

        Raises:
            CheckpointError: the tokenizer knows more tokens than the table.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if tokenizer.get_vocab_size() > vocab_size:
            raise CheckpointError(
                f"tokenizer.json has {tokenizer.get_vocab_size()} tokens; the model's table has {vocab_size}"
            )
        self.frame = frame
        self._tokenizer = tokenizer

    @property
    def pad_token_id(self) -> int:
        """What fills rows up to the length of the longest."""
        return self.frame.pad

    def tokens(self, text: str) -> tuple[list[int], np.ndarray]:
        """Return a text's token ids without special tokens, and the characters of each, int64 [T, 2].

        Raises:
            InputError: it is not valid Unicode.
        """
        require_unicode(text)
        (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=False)  # encode holds up other threads
        return encoding.ids, _offsets(encoding)

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

        Source: FlagEmbedding 1.4.2 BaseReranker.compute_score_single_gpu; tests/parity/test_flagembedding.py.
        """
        room, known = limits.room(self.frame.special_tokens), {} if known is None else known
        texts = dict.fromkeys(text for pair in pairs for text in pair)
        ids = {text: known[text] for text in texts if text in known}
        ids |= self._tokenise([text for text in texts if text not in ids], check)
        known.clear()
        known.update(ids)
        splits = [limits.split(len(ids[query]), len(ids[document]), room) for query, document in pairs]
        cut = [pair[1] for pair, (_, kept) in zip(pairs, splits, strict=True) if kept < len(ids[pair[1]])]
        rows = _Rows(limits, self.frame.special_tokens, self._places(cut))
        for (query, document), split in zip(pairs, splits, strict=True):
            q, d = ids[query], ids[document]
            windows = rows.add((query, document), (len(q), len(d)), split)
            rows.sequences += self.frame.rows(q[: split[0]], [d[a:b] for a, b in windows])
        return rows.encoded()

    def _tokenise(self, texts: list[str], check: Callable[[], None]) -> dict[str, list[int]]:
        """Return the ids of distinct texts, without special tokens."""
        ids = {}
        for chunk in _chunks(texts):
            check()
            for text in chunk:
                if not text.isascii():
                    require_unicode(text)
            encodings = self._tokenizer.encode_batch_fast(chunk, add_special_tokens=False)
            ids.update((text, encoding.ids) for text, encoding in zip(chunk, encodings, strict=True))
        return ids

    def _places(self, documents: Sequence[str]) -> dict[str, np.ndarray]:
        """Return where the tokens of documents are; only documents that are cut need this."""
        texts, places = list(dict.fromkeys(documents)), {}
        for chunk in _chunks(texts):
            encodings = self._tokenizer.encode_batch(chunk, add_special_tokens=False)
            places.update((text, _offsets(encoding)) for text, encoding in zip(chunk, encodings, strict=True))
        return places


class _Rows:
    """The rows of pairs, as they are put together."""

    def __init__(self, limits: Limits, special_tokens: int, offsets: Mapping[str, np.ndarray]) -> None:
        """Start without rows."""
        self._limits, self._special_tokens, self._offsets = limits, special_tokens, offsets
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
        windows, read = [(0, kept_d)], kept_d
        if kept_d < d:
            offsets = self._offsets[document]
            if isinstance(limits.long_documents, Windows):
                read = min(d, limits.document_max_length or d)
                windows = limits.long_documents.cut(document, offsets[:read], kept_d)
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


def _chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
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
    begin = int(offsets[first, 0]) if first else 0
    stop = len(text) if end == len(offsets) else int(offsets[end - 1, 1]) if end else 0
    return begin, max(begin, stop)
