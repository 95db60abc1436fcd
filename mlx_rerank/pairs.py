"""From texts to token ids: each text tokenised once, pairs joined by id, truncated once, counted honestly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from mlx_rerank.arguments import require_unicode
from mlx_rerank.config import SPECIAL_TOKENS_PER_PAIR, ModelConfig
from mlx_rerank.encoded import EncodedPairs
from mlx_rerank.errors import CheckpointError, InputError, require_whole_number
from mlx_rerank.windows import Windows

LongDocuments = Literal["truncate", "error"] | Windows
_LEAST_FOR_WINDOWS = 64  # tokens of a pair, so that the longest query leaves a window 15 of them
_CHUNK = 512  # texts per call of the tokenizer, between which Ctrl-C is heard


@dataclass(frozen=True)
class Limits:
    """How long a pair and its query may be, in tokens.

    Args:
        max_length: of the whole pair, special tokens included.
        query_max_length: of the query alone. Three quarters of max_length if None, as in FlagEmbedding. Never more
            than what the special tokens leave.
        document_max_length: of the document alone; what the query leaves if None.
        long_documents: what becomes of a document that does not fit: its end is not read, it is read in windows, or an
            error says so. A query is cut in any case but the last.
        longest_first: cut the longer text to the length of the other, then both alike, as the `tokenizers` library and
            sentence-transformers do. No text has a limit of its own then, and windows are not read.
    """

    max_length: int
    query_max_length: int | None = None
    document_max_length: int | None = None
    long_documents: LongDocuments = "truncate"
    longest_first: bool = False

    def __post_init__(self) -> None:
        """Raise InputError where nothing of a pair would be left."""
        if require_whole_number("max_length", self.max_length, least=0) <= SPECIAL_TOKENS_PER_PAIR:
            raise InputError(
                f"max_length {self.max_length} leaves no room for text: "
                f"{SPECIAL_TOKENS_PER_PAIR} tokens of every pair are special, so use a larger value"
            )
        if isinstance(self.long_documents, Windows) and self.max_length < _LEAST_FOR_WINDOWS:
            raise InputError(
                f"max_length {self.max_length} is too little to read documents in windows: "
                f"use {_LEAST_FOR_WINDOWS} or more"
            )
        for name in ("query_max_length", "document_max_length"):
            if getattr(self, name) is not None:
                require_whole_number(name, getattr(self, name))
        texts = (self.query_max_length, self.document_max_length)
        if self.longest_first and (texts != (None, None) or isinstance(self.long_documents, Windows)):
            raise InputError(
                "longest_first says how much is kept of each text: "
                "leave out query_max_length and document_max_length, and do not read documents in windows"
            )

    @property
    def best(self) -> int:
        """Of how many of a document's windows the mean is taken; 1 where it is not read in windows."""
        return self.long_documents.best if isinstance(self.long_documents, Windows) else 1

    def split(self, query_length: int, document_length: int) -> tuple[int, int]:
        """Return how many tokens of a query and of a document are kept: the query's share first, then the rest.

        Source: with longest_first, tokenizers 0.23 `truncate_encodings`; tests/test_pairs.py compares them.
        """
        room = self.max_length - SPECIAL_TOKENS_PER_PAIR
        if self.longest_first:
            half = (room + (query_length > document_length)) // 2  # of an odd number, the longer text has one more
            wanted = max(half, room - document_length)
        else:
            wanted = self.max_length * 3 // 4 if self.query_max_length is None else self.query_max_length
        windows = isinstance(self.long_documents, Windows)
        query = min(query_length, wanted, room * 3 // 4 if windows else room)
        document = min(document_length, room - query)
        return query, document if self.document_max_length is None else min(document, self.document_max_length)


class PairEncoder:
    """Turns (query, document) pairs into the token ids that an XLM-RoBERTa cross-encoder reads."""

    def __init__(self, tokenizer: Tokenizer, config: ModelConfig) -> None:
        """Take over a tokenizer, turning off any truncation and padding of its own.

        Raises:
            CheckpointError: the tokenizer and the model do not belong together.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        expected = {"<s>": config.bos_token_id, "</s>": config.eos_token_id, "<pad>": config.pad_token_id}
        found = {token: tokenizer.token_to_id(token) for token in expected}
        if found != expected:
            raise CheckpointError(f"tokenizer.json has special tokens {found}; config.json says {expected}")
        if tokenizer.get_vocab_size() > config.vocab_size:
            raise CheckpointError(
                f"tokenizer.json has {tokenizer.get_vocab_size()} tokens; the model's table has {config.vocab_size}"
            )
        self.pad_token_id = config.pad_token_id
        self._tokenizer = tokenizer
        self._start = [config.bos_token_id]
        self._middle = [config.eos_token_id, config.eos_token_id]
        self._end = [config.eos_token_id]

    @classmethod
    def from_directory(cls, directory: Path, config: ModelConfig) -> "PairEncoder":
        """Read the tokenizer.json of a checkpoint directory.

        Raises:
            CheckpointError: there is none, it cannot be read, or it does not belong to the model.
        """
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(
                f"{directory} has no tokenizer.json: write one with "
                "transformers.AutoTokenizer.from_pretrained(directory).save_pretrained(directory)"
            )
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        return cls(tokenizer, config)

    def tokens(self, text: str) -> tuple[list[int], np.ndarray]:
        """Return a text's token ids without special tokens, and int64 [T, 2], the characters that each is of.

        Raises:
            InputError: it is not valid Unicode.
        """
        require_unicode(text)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, _offsets(encoding)

    def encode(
        self, pairs: Sequence[tuple[str, str]], limits: Limits, known: dict[str, list[int]] | None = None
    ) -> EncodedPairs:
        """Tokenise, truncate and join pairs as ``<s> query </s></s> document </s>``.

        Args:
            pairs: (query, document) texts.
            limits: lengths to cut to.
            known: token ids of texts that need not be tokenised again. Afterwards it holds those of these pairs.

        Raises:
            InputError: a text is not valid Unicode; or a pair is too long, where limits say that this is an error.

        Source: FlagEmbedding 1.4.2 BaseReranker.compute_score_single_gpu; tests/parity/test_flagembedding.py.
        """
        known = {} if known is None else known
        texts = dict.fromkeys(text for pair in pairs for text in pair)
        ids = {text: known[text] for text in texts if text in known}
        ids |= self._tokenise([text for text in texts if text not in ids])
        known.clear()
        known.update(ids)
        splits = [limits.split(len(ids[query]), len(ids[document])) for query, document in pairs]
        cut = [pair[1] for pair, (_, kept) in zip(pairs, splits, strict=True) if kept < len(ids[pair[1]])]
        rows = _Rows(limits, self._places(cut))
        for (query, document), split in zip(pairs, splits, strict=True):
            q, d = ids[query], ids[document]
            windows = rows.add((query, document), (len(q), len(d)), split)
            head = self._start + q[: split[0]] + self._middle
            rows.sequences += [np.array(head + d[a:b] + self._end, dtype=np.int32) for a, b in windows]
        return rows.encoded()

    def _tokenise(self, texts: list[str]) -> dict[str, list[int]]:
        """Return the ids of distinct texts, without special tokens."""
        ids = {}
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            for text in chunk:
                if not text.isascii():
                    require_unicode(text)
            encodings = self._tokenizer.encode_batch_fast(chunk, add_special_tokens=False)
            ids.update((text, encoding.ids) for text, encoding in zip(chunk, encodings, strict=True))
        return ids

    def _places(self, documents: Sequence[str]) -> dict[str, np.ndarray]:
        """Return where the tokens of documents are; asked for those of which not all is kept."""
        texts, places = list(dict.fromkeys(documents)), {}
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            encodings = self._tokenizer.encode_batch(chunk, add_special_tokens=False)
            places.update((text, _offsets(encoding)) for text, encoding in zip(chunk, encodings, strict=True))
        return places


class _Rows:
    """The rows of pairs, as they are put together."""

    def __init__(self, limits: Limits, offsets: Mapping[str, np.ndarray]) -> None:
        """Begin with none."""
        self._limits, self._offsets = limits, offsets
        self.sequences: list[np.ndarray] = []
        self._owners: list[int] = []
        self._spans: list[tuple[int, int]] = []
        self._truncated: list[int] = []
        self._share_read: list[float] = []

    def add(self, pair: tuple[str, str], lengths: tuple[int, int], split: tuple[int, int]) -> list[tuple[int, int]]:
        """Note a pair.

        Args:
            pair: its texts.
            lengths: their tokens.
            split: those that are kept, as `Limits.split` says.

        Returns:
            For each row its first token of the document, and the one after its last.
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
                f"the pair ({query[:40]!r}, {document[:40]!r}) has {q + d + SPECIAL_TOKENS_PER_PAIR} tokens, more than "
                f"max_length {limits.max_length} allows: shorten it, or pass long_documents='truncate' or 'windows'"
            )
        self._owners += [len(self._truncated)] * len(windows)
        self._truncated.append(cut)
        self._share_read.append(read / d if d else 1.0)
        return windows

    def encoded(self) -> EncodedPairs:
        """Return them, each distinct sequence once."""
        places: dict[bytes, int] = {}
        inverse = [places.setdefault(sequence.tobytes(), len(places)) for sequence in self.sequences]
        distinct = dict(zip(inverse, self.sequences, strict=True))
        columns = (inverse, self._owners, np.reshape(self._spans, (-1, 2)), self._truncated)
        return EncodedPairs(
            list(distinct.values()),
            *(np.array(column, dtype=np.int64) for column in columns),
            share_read=np.array(self._share_read, dtype=np.float64),
        )


def _offsets(encoding: Any) -> np.ndarray:
    """Return where each token's characters begin and end, int64 [T, 2]."""
    return np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)


def _span(text: str, offsets: np.ndarray, first: int, end: int) -> tuple[int, int]:
    """Return the characters that tokens are of; what comes before the first and after the last belongs to them."""
    begin = int(offsets[first, 0]) if first else 0
    stop = len(text) if end == len(offsets) else int(offsets[end - 1, 1]) if end else 0
    return begin, max(begin, stop)


def parse_long_documents(value: LongDocuments | str) -> LongDocuments:
    """Return how long documents are read; "windows" stands for the usual ones.

    Raises:
        InputError: there is no such way.
    """
    if value in ("truncate", "error") or isinstance(value, Windows):
        return value
    if value != "windows":
        raise InputError(f"long_documents must be 'truncate', 'windows', 'error' or a Windows, not {value!r}")
    return Windows()


def checked_length(max_length: int, config: ModelConfig) -> int:
    """Return max_length.

    Raises:
        InputError: the model has no positions for it, or it leaves no room for text.
    """
    if require_whole_number("max_length", max_length, least=0) > config.max_length:
        raise InputError(
            f"max_length {max_length} exceeds this model's limit of {config.max_length} tokens: "
            "use a smaller value, or a model with more positions"
        )
    return Limits(max_length).max_length
