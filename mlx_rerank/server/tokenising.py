"""Texts of all requests to token ids, a slice of each request in turn."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlx_rerank.pairs.encoded import EncodedPairs
from mlx_rerank.pairs.encoder import PairEncoder
from mlx_rerank.pairs.limits import Limits

_THREADS = 2  # the tokenizer library uses all cores for each anyway
_PAIRS, _CHARACTERS = 256, 200_000  # of a slice: some tens of milliseconds

Pair = tuple[str, str]


class Tokeniser:
    """Encodes pairs in threads, so that the event loop goes on, and a request that is dropped ends with its slice."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._threads = ThreadPoolExecutor(_THREADS, "mlx-rerank-tokeniser")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def encode(self, encoder: PairEncoder, pairs: Sequence[Pair], limits: Limits) -> EncodedPairs:
        """Return pairs as token ids.

        Raises:
            InputError: a text is not valid Unicode.
        """
        known: dict[str, list[int]] = {}  # of the last slice's texts, the query among them
        run = asyncio.get_running_loop().run_in_executor
        parts = [await run(self._threads, encoder.encode, part, limits, known) for part in slices(pairs)]
        return EncodedPairs.joined(parts)


def slices(pairs: Sequence[Pair]) -> Iterator[Sequence[Pair]]:
    """Cut pairs into slices that take about as long to encode."""
    start = characters = 0
    for i, (query, document) in enumerate(pairs):
        size = len(document) + (len(query) if i == 0 or query != pairs[i - 1][0] else 0)  # each is encoded once
        if i - start == _PAIRS or (i > start and characters + size > _CHARACTERS):
            yield pairs[start:i]
            start, characters = i, 0
        characters += size
    yield pairs[start:]
