"""Which pairs a score cache knows, so that only the others are encoded and scored."""

import json
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from hashlib import blake2b
from importlib.metadata import version

import numpy as np

import mlx_rerank
from mlx_rerank.pairs import Limits
from mlx_rerank.results import PairLogits
from mlx_rerank.score_cache import CachedScore, ScoreCache

_BYTES = 16  # of a hash: among 1e9 keys, two are alike with a chance of 1e-21
Pair = tuple[str, str]


@dataclass(frozen=True)
class Computation:
    """All but limits and texts that the bits of a logit depend on.

    Args:
        fingerprint: of the checkpoint's files.
        dtype: that the model runs in.
        device: "gpu" or "cpu".
        deterministic: whether each pair has a batch of its own.
    """

    fingerprint: str
    dtype: str
    device: str
    deterministic: bool


@dataclass(frozen=True)
class CachedLogits:
    """A model's part of a score cache."""

    cache: ScoreCache
    computation: Computation

    def complete(
        self, pairs: Sequence[Pair], limits: Limits, compute: Callable[[Sequence[Pair]], PairLogits]
    ) -> PairLogits:
        """Return the logits of pairs: those that are known, and the others as computed now, which are kept.

        Args:
            pairs: (query, document) texts.
            limits: lengths that they are cut to.
            compute: gives the logits of distinct pairs. Those that are not finite are passed on, and not kept.
        """
        names = keys(self.computation, limits, pairs)
        scores = self.cache.get(names)
        missing = {name: pair for name, pair in zip(names, pairs, strict=True) if name not in scores}
        if missing:
            computed = compute(list(missing.values()))
            values = zip(computed.logits.tolist(), computed.truncated_tokens.tolist(), strict=True)
            fresh = {name: CachedScore(*value) for name, value in zip(missing, values, strict=True)}
            self.cache.put(fresh)
            scores |= fresh
        found = [scores[name] for name in names]
        return PairLogits(
            np.array([score.logit for score in found], dtype=np.float32),
            np.array([score.truncated_tokens for score in found], dtype=np.int64),
        )


def keys(computation: Computation, limits: Limits, pairs: Sequence[Pair]) -> list[bytes]:
    """Return a hash for each pair, of its texts and of everything else that its logit depends on."""
    versions = mlx_rerank.__version__, version("mlx")
    common = _hash(json.dumps([astuple(computation), astuple(limits), versions]))
    texts = {text: _hash(text) for text in dict.fromkeys(text for pair in pairs for text in pair)}
    # Hashes are all of one length, so that no text can pass for the end of one and the beginning of another.
    return [blake2b(common + texts[query] + texts[document], digest_size=_BYTES).digest() for query, document in pairs]


def _hash(text: str) -> bytes:
    """Return the hash of a text, which may not be valid Unicode: that is for the encoder to say."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()
