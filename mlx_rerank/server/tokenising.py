"""Texts of all requests to token ids, a slice of each request in turn."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlx_rerank.pairs.encoded import EncodedPairs
from mlx_rerank.pairs.encoder import PairEncoder, weight
from mlx_rerank.pairs.limits import Limits

_THREADS = 2  # the tokenizer library uses all cores for each anyway
_PAIRS, _CHARACTERS = 256, 100_000  # of a slice: some tens of milliseconds

Pair = tuple[str, str]


class Tokeniser:
    """Encodes pairs in threads, so that the event loop goes on, and a request that is dropped ends with its slice.

    Requests of several slices take turns at one of the threads: the other is left to those that are done at once.
    """

    def __init__(self) -> None:
        """Start no thread yet."""
        self._threads = ThreadPoolExecutor(_THREADS, "mlx-rerank-tokeniser")
        self._long = asyncio.Lock()

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
        parts = list(slices(pairs))
        if len(parts) == 1:
            return await run(self._threads, encoder.encode, pairs, limits, known)
        encoded = []
        for part in parts:
            async with self._long:
                encoded.append(await run(self._threads, encoder.encode, part, limits, known))
        return EncodedPairs.joined(encoded)


def weights(pairs: Sequence[Pair]) -> Iterator[int]:
    """Yield how many characters are encoded for each pair: those of a query that the pair before has too are not."""
    last = None
    for query, document in pairs:
        yield weight(document) + (weight(query) if query != last else 0)
        last = query


def slices(pairs: Sequence[Pair]) -> Iterator[Sequence[Pair]]:
    """Cut pairs into slices that take about as long to encode."""
    start = characters = 0
    for i, size in enumerate(weights(pairs)):
        if i - start == _PAIRS or (i > start and characters + size > _CHARACTERS):
            yield pairs[start:i]
            start, characters = i, 0
        characters += size
    yield pairs[start:]
