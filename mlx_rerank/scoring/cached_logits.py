"""Which pairs a score cache knows, so that only the others are encoded and scored."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

import numpy as np

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.errors import NonFiniteScoreError, StoppedError
from mlx_rerank.models.mapping import ScoreMapping
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.scoring.results import PairLogits
from mlx_rerank.scoring.score_cache import CachedScore, ScoreCache
from mlx_rerank.version import __version__

_BYTES = 16  # of a hash: among 1e9 keys, two are alike with a chance of 1e-21
Pair = tuple[str, str]


@dataclass(frozen=True)
class Computation:
    """Everything that the bits of a logit depend on, except limits and texts.

    Args:
        fingerprint: of the checkpoint's files.
        dtype: that the model runs in.
        device: "gpu" or "cpu".
        deterministic: whether each pair has a batch of its own.
        instruction: what the model is told, if it is told; of a template of its own.
    """

    fingerprint: str
    dtype: str
    device: str
    deterministic: bool
    instruction: str | None = None


@dataclass(frozen=True)
class CachedLogits:
    """A model's part of a score cache."""

    cache: ScoreCache
    computation: Computation
    mapping: ScoreMapping

    @classmethod
    def open(
        cls,
        path: str | Path,
        checkpoint: Checkpoint,
        dtype: str,
        device: str,
        deterministic: bool,
        instruction: str | None = None,
    ) -> "CachedLogits":
        """Open a score cache for a model.

        Raises:
            InputError: the path is no path, or leads to another program's database.
            CheckpointError: a file of the checkpoint is not there.
        """
        cache = ScoreCache(path)
        computation = Computation(checkpoint.fingerprint(cache.digest), dtype, device, deterministic, instruction)
        return cls(cache, computation, checkpoint.mapping)

    def complete(
        self, pairs: Sequence[Pair], limits: Limits, compute: Callable[[Sequence[Pair]], PairLogits]
    ) -> PairLogits:
        """Return the logits of pairs: known ones are looked up, the others are computed and kept.

        Args:
            pairs: (query, document) texts.
            limits: lengths that they are cut to.
            compute: gives the logits of distinct pairs.

        Raises:
            StoppedError: compute was stopped; what it had done is kept.
            NonFiniteScoreError: the model produced NaN or infinity.
        """
        names = keys(self.computation, limits, pairs)
        scores = self.cache.get(names)
        missing = {name: pair for name, pair in zip(names, pairs, strict=True) if name not in scores}
        if missing:
            scores |= self._computed(missing, compute, scores, names)
        return self._logits([scores[name] for name in names])

    def _computed(
        self,
        missing: Mapping[bytes, Pair],
        compute: Callable[[Sequence[Pair]], PairLogits],
        known: Mapping[bytes, CachedScore],
        names: Sequence[bytes],
    ) -> dict[bytes, CachedScore]:
        """Compute and store missing scores; if stopped, report every known score."""
        keys_of = list(missing)
        try:
            fresh = _scores(keys_of, compute(list(missing.values())))
        except StoppedError as error:
            done = PairLogits(error.logits, error.truncated_tokens, error.spans, self.mapping)
            fresh = _scores([keys_of[i] for i in error.indices], done)
            self.cache.put(fresh)
            all_known = {**known, **fresh}
            places = [i for i, name in enumerate(names) if name in all_known]
            found = self._logits([all_known[names[i]] for i in places])
            message = f"{error}; with those that the score cache knew, {len(places)} of {len(names)} are known"
            held = (found.logits, found.truncated_tokens, found.spans)
            raise type(error)(message, np.array(places, np.int64), *held) from None
        except NonFiniteScoreError as error:
            raise NonFiniteScoreError(f"{error} (Pairs are counted without those that the score cache knew)") from None
        self.cache.put(fresh)
        return fresh

    def _logits(self, scores: Sequence[CachedScore]) -> PairLogits:
        """Return scores as arrays."""
        return PairLogits(
            np.array([score.logit for score in scores], dtype=np.float32),
            np.array([score.truncated_tokens for score in scores], dtype=np.int64),
            np.array([(score.begin, score.end) for score in scores], dtype=np.int64).reshape(-1, 2),
            self.mapping,
        )


def _scores(names: Sequence[bytes], computed: PairLogits) -> dict[bytes, CachedScore]:
    """Return what was computed, by name."""
    values = zip(computed.logits.tolist(), computed.truncated_tokens.tolist(), computed.spans.tolist(), strict=True)
    return {name: CachedScore(logit, cut, *span) for name, (logit, cut, span) in zip(names, values, strict=True)}


def keys(computation: Computation, limits: Limits, pairs: Sequence[Pair]) -> list[bytes]:
    """Return a hash for each pair, of its texts and of everything else that its logit depends on."""
    versions = __version__, version("mlx")
    common = _hash(json.dumps([_told(computation), astuple(limits), versions]))
    texts = {text: _hash(text) for text in dict.fromkeys(text for pair in pairs for text in pair)}
    # All hashes have one length, so that these bytes can be split into query and document in only one way.
    return [blake2b(common + texts[query] + texts[document], digest_size=_BYTES).digest() for query, document in pairs]


def _told(computation: Computation) -> tuple:
    """Return what a computation depends on, without an instruction where there is none: as before there were any."""
    values = astuple(computation)
    return values if values[-1] is not None else values[:-1]


def _hash(text: str) -> bytes:
    """Return the hash of a text. It may be invalid Unicode, which the encoder refuses later."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()
