"""From texts to token ids: each text tokenised once, pairs joined by id, truncated once, counted honestly."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from mlx_rerank.checkpoints.config import SPECIAL_TOKENS_PER_PAIR, ModelConfig
from mlx_rerank.errors import CheckpointError, InputError
from mlx_rerank.pairs.arguments import require_unicode
from mlx_rerank.pairs.encoded import EncodedPairs
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.windows import Windows

_CHUNK = 512  # texts per call of the tokenizer, between which Ctrl-C is heard


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
