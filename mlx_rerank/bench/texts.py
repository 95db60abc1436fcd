"""Real texts to measure on: pairs at their natural lengths, and pairs cut from them to a length in tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from tokenizers import Tokenizer

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.hub import public_name
from mlx_rerank.checkpoints.reading import read_bytes
from mlx_rerank.dtypes import default_dtype
from mlx_rerank.errors import InputError
from mlx_rerank.pairs.batching import Batching
from mlx_rerank.pairs.files import read_documents
from mlx_rerank.pairs.limits import Limits, checked_length
from mlx_rerank.pairs.samples import sample_pairs
from mlx_rerank.pairs.tokenizing import parse_tokenizer
from mlx_rerank.scoring.budget import default_token_budget

Pairs = list[tuple[str, str]]
_SOURCE_CHARACTERS = 1_000_000  # of documents, joined, that windows are cut from
_TRIES = 200  # windows to try for one that has the wanted length on its own


class Texts:
    """A query with its candidates in a seeded order, and windows cut from the candidates where more are needed."""

    def __init__(self, name: str, pairs: Pairs, seed: int = 0) -> None:
        """Shuffle pairs; at least one must have a text."""
        self.name = name
        self._random = np.random.default_rng(seed)
        distinct = list(dict.fromkeys(pairs))
        self.pairs = [distinct[i] for i in self._random.permutation(len(distinct))]
        joined = "\n".join(dict.fromkeys(document for _, document in self.pairs))
        if not joined.strip():
            raise InputError(f"{name} holds no document with a text")
        self._joined = joined[:_SOURCE_CHARACTERS]

    @classmethod
    def read(cls, data: Path | None, seed: int = 0) -> "Texts":
        """Read a directory in the BEIR layout and choose the query by the seed; the package's samples for None.

        Raises:
            InputError: there is no corpus.jsonl or queries.jsonl, or they cannot be read.
        """
        if data is None:
            return cls("samples of the package", sample_pairs(), seed)
        rows = {name: read_documents([str(data / f"{name}.jsonl")], "jsonl") for name in ("queries", "corpus")}
        if not rows["queries"]:
            raise InputError(f"{data / 'queries.jsonl'} holds no query")
        query = rows["queries"][int(np.random.default_rng(seed).integers(len(rows["queries"])))]["text"]
        documents = [" ".join(filter(None, (row.get("title"), row["text"]))) for row in rows["corpus"]]
        return cls(public_name(data), [(query, document) for document in documents if document.strip()], seed)

    def natural(self, count: int) -> Pairs:
        """Return distinct pairs; where there are too few, windows that are as long as the documents are."""
        found = dict.fromkeys(self.pairs[:count])
        sizes = [len(document) for _, document in self.pairs if document]
        for _ in range(_TRIES * count):
            if len(found) == count:
                return list(found)
            size = sizes[int(self._random.integers(len(sizes)))]
            start = int(self._random.integers(max(1, len(self._joined) - size)))
            found[(self.pairs[0][0], self._joined[start : start + size].strip())] = None
        raise InputError(f"{self.name} holds too little text for {count} different candidates: give a larger --data")

    def cut(self, tokenizer: Tokenizer, tokens: int, count: int, *, special_tokens: int, exact: bool = True) -> Pairs:
        """Return distinct pairs of a length in tokens, special ones included, cut from real text.

        Args:
            tokenizer: that counts.
            tokens: of each pair.
            count: of pairs.
            special_tokens: of each pair.
            exact: leave out what is a token longer or shorter because it was cut.

        Raises:
            InputError: the texts do not yield that many.
        """
        query, taken = _head(tokenizer, self.pairs[0][0], max(1, tokens // 4))
        wanted = tokens - special_tokens - taken
        offsets = self._offsets(tokenizer)
        found: dict[tuple[str, str], None] = {}
        for _ in range(_TRIES * count if 0 < wanted < len(offsets) else 0):
            if len(found) == count:
                break
            start = int(self._random.integers(len(offsets) - wanted))
            text = self._joined[offsets[start][0] : offsets[start + wanted - 1][1]].strip()
            if not exact or _count(tokenizer, text) == wanted:
                found[(query, text)] = None
        if len(found) < count:
            raise InputError(
                f"{self.name} yields {len(found)} of {count} pairs of {tokens} tokens: give another --data"
            )
        return list(found)

    def _offsets(self, tokenizer: Tokenizer) -> list[tuple[int, int]]:
        """Return where each token of the joined documents starts and ends; kept, since every length needs it."""
        if getattr(self, "_known", (None,))[0] is not tokenizer:
            self._known: tuple[Any, list] = tokenizer, tokenizer.encode(self._joined, add_special_tokens=False).offsets
        return self._known[1]


@dataclass(frozen=True)
class Workload:
    """What every contender does in a round.

    Args:
        name: as tables show it.
        calls: the pairs of each call.
        tokens: of all calls together, special ones included and without padding.
        padded: what mlx-rerank's default batches make of them.
    """

    name: str
    calls: list[Pairs]
    tokens: int
    padded: int

    @property
    def pairs(self) -> int:
        """Pairs of all calls."""
        return sum(map(len, self.calls))


class Counter:
    """Counts tokens as mlx-rerank reads them, for whichever contender."""

    def __init__(self, directory: Path, max_length: int | None = None) -> None:
        """Read config and tokenizer of a checkpoint directory.

        Raises:
            CheckpointError: they cannot be used.
            InputError: the model has no positions for max_length.
        """
        checkpoint = Checkpoint.open(directory)
        self.shape, self.cost = checkpoint.shape, checkpoint.family.cost(checkpoint.shape)
        self._encoder = checkpoint.encoder()
        self.special_tokens = self._encoder.frame.special_tokens
        wanted = min(512, self.shape.max_length) if max_length is None else max_length
        self.max_length = checked_length(wanted, self.shape.max_length, self.special_tokens)
        device = mx.default_device()
        self.token_budget = default_token_budget(self.cost, device, default_dtype(device), self.max_length)
        self._limits = Limits(self.max_length)
        path = directory / "tokenizer.json"
        self.tokenizer = parse_tokenizer(read_bytes(path), path)

    def lengths(self, pairs: Pairs) -> np.ndarray:
        """Return the tokens of each pair, int64 [N], cut to max_length."""
        encoded = self._encoder.encode(pairs, self._limits)
        return encoded.lengths[encoded.inverse]

    def workload(self, name: str, calls: list[Pairs]) -> Workload:
        """Return a workload with its tokens counted."""
        lengths = [self.lengths(call) for call in calls]
        padded = sum(padded_tokens(each, Batching(self.token_budget).plan(each)) for each in lengths)
        return Workload(name, calls, int(sum(each.sum() for each in lengths)), padded)


def padded_tokens(lengths: np.ndarray, batches: Sequence[np.ndarray]) -> int:
    """Return the tokens that batches have with their padding: rows x longest row of each."""
    return int(sum(len(batch) * lengths[batch].max() for batch in batches))


def _head(tokenizer: Tokenizer, text: str, tokens: int) -> tuple[str, int]:
    """Return at most so many tokens of a text's beginning, and how many they are."""
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    head = text[: offsets[tokens - 1][1]] if len(offsets) > tokens else text
    return head, _count(tokenizer, head)


def _count(tokenizer: Tokenizer, text: str) -> int:
    """Return the tokens of a text."""
    return len(tokenizer.encode(text, add_special_tokens=False).ids)
