"""From texts to token ids: each text tokenised once, pairs joined by id, truncated once, counted honestly."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from mlx_rerank.config import SPECIAL_TOKENS_PER_PAIR, ModelConfig
from mlx_rerank.errors import CheckpointError, InputError, require_whole_number
from mlx_rerank.results import Document

_CHUNK = 512  # texts per call of the tokenizer, between which Ctrl-C is heard


@dataclass(frozen=True)
class Limits:
    """How long a pair and its query may be, in tokens.

    Args:
        max_length: of the whole pair, special tokens included.
        query_max_length: of the query alone. Three quarters of max_length if None, as in FlagEmbedding. Never more
            than what the special tokens leave.
        document_max_length: of the document alone; what the query leaves if None.
    """

    max_length: int
    query_max_length: int | None = None
    document_max_length: int | None = None

    def __post_init__(self) -> None:
        """Raise InputError where nothing of a pair would be left."""
        if require_whole_number("max_length", self.max_length, least=0) <= SPECIAL_TOKENS_PER_PAIR:
            raise InputError(
                f"max_length {self.max_length} leaves no room for text: "
                f"{SPECIAL_TOKENS_PER_PAIR} tokens of every pair are special, so use a larger value"
            )
        for name in ("query_max_length", "document_max_length"):
            if getattr(self, name) is not None:
                require_whole_number(name, getattr(self, name))

    def split(self, query_length: int, document_length: int) -> tuple[int, int]:
        """Return how many tokens of a query and of a document are kept: the query's share first, then the rest."""
        wanted = self.max_length * 3 // 4 if self.query_max_length is None else self.query_max_length
        room = self.max_length - SPECIAL_TOKENS_PER_PAIR
        query = min(query_length, wanted, room)
        document = min(document_length, room - query)
        return query, document if self.document_max_length is None else min(document, self.document_max_length)


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs as token ids, each distinct sequence once.

    Args:
        sequences: distinct pairs, int32 [tokens] each.
        inverse: int64 [N], for each of the caller's pairs its place in `sequences`.
        truncated_tokens: int64 [N], tokens of query and document that were cut.
        share_read: float64 [N], of each document's tokens, those that were kept; 1 for a document without any.
    """

    sequences: list[np.ndarray]
    inverse: np.ndarray
    truncated_tokens: np.ndarray
    share_read: np.ndarray

    @classmethod
    def joined(cls, parts: "Sequence[EncodedPairs]") -> "EncodedPairs":
        """Return the pairs of several, at least one, in that order; sequences that they share are there once."""
        if len(parts) == 1:
            return parts[0]
        places: dict[bytes, int] = {}
        sequences: list[np.ndarray] = []
        inverse = []
        for part in parts:
            own = np.array([places.setdefault(ids.tobytes(), len(places)) for ids in part.sequences], dtype=np.int64)
            sequences += [ids for ids, place in zip(part.sequences, own, strict=True) if place >= len(sequences)]
            inverse.append(own[part.inverse])
        columns = ([part.truncated_tokens for part in parts], [part.share_read for part in parts])
        return cls(sequences, np.concatenate(inverse), *map(np.concatenate, columns))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each distinct sequence, int64."""
        return np.array([len(sequence) for sequence in self.sequences], dtype=np.int64)


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

    def encode(
        self, pairs: Sequence[tuple[str, str]], limits: Limits, known: dict[str, list[int]] | None = None
    ) -> EncodedPairs:
        """Tokenise, truncate and join pairs as ``<s> query </s></s> document </s>``.

        Args:
            pairs: (query, document) texts.
            limits: lengths to cut to.
            known: token ids of texts that need not be tokenised again. Afterwards it holds those of these pairs.

        Raises:
            InputError: a text is not valid Unicode.

        Source: FlagEmbedding 1.4.2 BaseReranker.compute_score_single_gpu; tests/parity/test_flagembedding.py.
        """
        known = {} if known is None else known
        texts = dict.fromkeys(text for pair in pairs for text in pair)
        ids = {text: known[text] for text in texts if text in known}
        ids |= self._tokenise([text for text in texts if text not in ids])
        known.clear()
        known.update(ids)
        places: dict[bytes, int] = {}
        sequences: list[np.ndarray] = []
        inverse = np.empty(len(pairs), dtype=np.int64)
        truncated = np.empty(len(pairs), dtype=np.int64)
        share_read = np.ones(len(pairs))
        for i, (query, document) in enumerate(pairs):
            q, d = ids[query], ids[document]
            keep_q, keep_d = limits.split(len(q), len(d))
            joined = self._start + q[:keep_q] + self._middle + d[:keep_d] + self._end
            sequence = np.array(joined, dtype=np.int32)
            place = places.setdefault(sequence.tobytes(), len(sequences))
            if place == len(sequences):
                sequences.append(sequence)
            inverse[i] = place
            truncated[i] = len(q) - keep_q + len(d) - keep_d
            share_read[i] = keep_d / len(d) if d else 1.0
        return EncodedPairs(sequences, inverse, truncated, share_read)

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


def document_text(document: Document, index: int) -> str:
    """Return the text of a document.

    Raises:
        InputError: it is neither a text nor a mapping with a `text` that is one.
    """
    text = document.get("text") if isinstance(document, Mapping) else document
    if not isinstance(text, str):
        raise InputError(
            f"documents[{index}] must be a text or a mapping with a text under 'text'; got {type(document).__name__} "
            f"{str(document)[:60]!r}"
        )
    return text


def require_sequence(name: str, values: Any) -> None:
    """Refuse what has no order, or whose elements are not what they seem: a text's are letters, a table's column names.

    Raises:
        InputError: it is not something like a list.
    """
    odd = isinstance(values, (str, bytes, Mapping, Set)) or hasattr(values, "columns")
    if odd or not isinstance(values, Iterable):
        raise InputError(f"{name} must be a list, not a {type(values).__name__}")


def check_pairs(pairs: Iterable[Sequence[str]]) -> list[tuple[str, str]]:
    """Return pairs as a list of two-text tuples.

    Raises:
        InputError: something is not a list of pairs of texts; it names the pair.
    """
    require_sequence("pairs", pairs)
    return list(checked_pairs(pairs))


def checked_pairs(pairs: Iterable[Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Yield pairs as two-text tuples, each checked when it is asked for.

    Raises:
        InputError: something is not a pair of valid texts; it names the pair.
    """
    for i, pair in enumerate(pairs):
        if isinstance(pair, (str, bytes, Mapping, Set)) or not isinstance(pair, Iterable):
            raise InputError(
                f"pairs[{i}] must be a (query, document) pair, not {type(pair).__name__} {str(pair)[:60]!r}"
            )
        texts = tuple(pair)
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise InputError(
                f"pairs[{i}] must be two texts; got {len(texts)} values of type "
                f"{', '.join(type(text).__name__ for text in texts[:4])}"
            )
        for text in texts:
            if not text.isascii():
                require_unicode(text, f"pairs[{i}]: ")
        yield texts


def pairs_of(pairs: Iterable[Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Return an iterator over pairs: those of a list are checked now, any others as they are read.

    Raises:
        InputError: something is not a list of pairs of texts; it names the pair.
    """
    require_sequence("pairs", pairs)
    return iter(check_pairs(pairs)) if isinstance(pairs, (list, tuple)) else checked_pairs(pairs)


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


def require_unicode(text: str, where: str = "") -> None:
    """Refuse lone surrogates, which have no UTF-8 form and which the tokenizer library rejects without saying where."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise InputError(
            f"{where}character {error.start} of the text starting {text[:40]!r} is a lone surrogate ({code}): the text "
            "was decoded wrongly; replace it, for example with text.encode('utf-8', 'replace').decode()"
        ) from None
