"""Reranker: texts in, comparable scores out."""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from tqdm import tqdm

from mlx_rerank import copies, hub
from mlx_rerank.batching import pad, plan_batches
from mlx_rerank.checkpoint import Checkpoint
from mlx_rerank.device import parse_device
from mlx_rerank.dtypes import default_dtype, dtype_name, parse_dtype
from mlx_rerank.engine import Engine
from mlx_rerank.errors import InputError, require_whole_number
from mlx_rerank.pairs import Limits, PairEncoder, check_pairs, document_text, require_sequence
from mlx_rerank.results import Document, PairLogits, RankedDocument, require_finite, sigmoid

if TYPE_CHECKING:
    from mlx_rerank.lookup import CachedLogits

DEFAULT_MAX_LENGTH = 512
DEFAULT_TOKEN_BUDGET = 4096
_PROGRESS_DELAY = 1.0  # seconds before a progress bar nobody asked for appears

logger = logging.getLogger("mlx_rerank")


class Reranker:
    """A cross-encoder that scores and ranks documents for a query.

    Safe to use from several threads at once: they share one device thread, and their batches take turns.
    """

    def __init__(
        self,
        model: str | Path = "mini",
        *,
        dtype: str | None = None,
        device: str | None = None,
        max_length: int | None = None,
        token_budget: int | None = None,
        deterministic: bool = False,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        score_cache: str | Path | None = None,
    ) -> None:
        """Load a model.

        Args:
            model: an embedded model's name ("mini"), a hub id, a Hugging Face directory (converted in memory), or a
                directory that `mlx-rerank convert` wrote.
            dtype: "float16", "bfloat16" or "float32"; float16 on a GPU and float32 on a CPU if None.
            device: "gpu" or "cpu"; MLX's default one if None.
            max_length: most tokens of a pair, special tokens included; 512, or the model's limit where that is less,
                if None.
            token_budget: most padded tokens computed at once; 4096 if None. More needs more memory.
            deterministic: compute every pair in a batch of its own, unpadded, so that its logit depends on nothing but
                the pair, bit for bit. Otherwise the pairs beside it decide the shapes that are multiplied, and with
                them the order of sums: in float32 a logit moves by 1e-5 at most (tests/test_invariance.py).
            revision: branch, tag or commit of a hub model.
            cache_dir: where hub downloads are kept.
            score_cache: a file in which scores are kept and looked up, by this process and others; made if it is not
                there. A score that was found has the bits that it was computed with, whatever was beside it then.

        Raises:
            CheckpointNotFoundError: the model's name leads nowhere.
            CheckpointError: its files cannot be used.
            UnsupportedModelError: it is not a single-label XLM-RoBERTa cross-encoder.
            DeviceError: this machine has no such device.
            InputError: the dtype is unknown, a limit is out of range, or score_cache is another program's database.
            MissingDependencyError: the checkpoint needs torch to be read.
        """
        mlx_device = parse_device(device)
        mlx_dtype = parse_dtype(dtype) if dtype else default_dtype(mlx_device)
        checkpoint = Checkpoint.open(hub.resolve(model, revision=revision, cache_dir=cache_dir))
        self.config = checkpoint.config
        self.dtype = dtype_name(mlx_dtype)
        self.device = "gpu" if mlx_device.type == mlx_device.type.gpu else "cpu"
        default_length = min(DEFAULT_MAX_LENGTH, self.config.max_length)
        self.max_length = self._checked_length(default_length if max_length is None else max_length)
        self.token_budget = DEFAULT_TOKEN_BUDGET if token_budget is None else token_budget
        if not isinstance(deterministic, bool):
            raise InputError(f"deterministic must be True or False, not {deterministic!r}")
        self.deterministic = deterministic
        plan_batches(np.array([]), self.token_budget)  # refuses a bad budget now, not at the first score
        self.encoder = PairEncoder.from_directory(checkpoint.directory, self.config)
        self._cached = None if score_cache is None else self._open_cache(score_cache, checkpoint)
        self.engine = copies.load(checkpoint, self.dtype, mlx_device, lambda it: Engine(it, mlx_dtype, mlx_device))

    @overload
    def score(
        self, pairs: str, document: str, /, *, raw_scores: bool = ..., show_progress: bool | None = ...
    ) -> float: ...
    @overload
    def score(
        self, pairs: Iterable[Sequence[str]], /, *, raw_scores: bool = ..., show_progress: bool | None = ...
    ) -> np.ndarray: ...
    def score(
        self,
        pairs: str | Iterable[Sequence[str]],
        document: str | None = None,
        /,
        *,
        raw_scores: bool = False,
        show_progress: bool | None = None,
    ) -> float | np.ndarray:
        """Score pairs: `score([(query, document), ...])`, or one: `score(query, document)`.

        Args:
            pairs: (query, document) pairs; or one query, with its document as second argument.
            document: the document of a single query.
            raw_scores: return logits instead of their sigmoid.
            show_progress: a progress bar on stderr; on a terminal and after a second if None.

        Returns:
            float32 [N], higher is more relevant, in 0..1 unless raw; a float for a single pair.

        Raises:
            InputError: something is not a pair of texts.
            NonFiniteScoreError: the model produced NaN or infinity.
        """
        if isinstance(pairs, str) and document is not None:
            return float(self.score([(pairs, document)], raw_scores=raw_scores, show_progress=show_progress)[0])
        if isinstance(pairs, str) or document is not None:
            raise InputError("score takes a list of (query, document) pairs, or a query and a document")
        scored = self.logits(pairs, show_progress=show_progress)
        log_truncation(scored.truncated_tokens, self.max_length)
        return scored.logits if raw_scores else sigmoid(scored.logits)

    def rank(
        self,
        query: str,
        documents: Iterable[Document],
        *,
        top_n: int | None = None,
        raw_scores: bool = False,
        show_progress: bool | None = None,
    ) -> list[RankedDocument]:
        """Rank documents by their relevance to a query.

        Args:
            query: what is asked.
            documents: texts, or mappings with a `text` key; they come back untouched.
            top_n: how many to return; all if None.
            raw_scores: give logits instead of their sigmoid.
            show_progress: a progress bar on stderr; on a terminal and after a second if None.

        Returns:
            The best first; equal scores in the order given.

        Raises:
            InputError: a document is neither, or top_n is below one.
            NonFiniteScoreError: the model produced NaN or infinity.
        """
        if top_n is not None:
            require_whole_number("top_n", top_n)
        if not isinstance(query, str):
            raise InputError(f"query must be a text, not {type(query).__name__} {str(query)[:60]!r}")
        require_sequence("documents", documents)
        kept = list(documents)
        scored = self.logits(
            [(query, document_text(document, i)) for i, document in enumerate(kept)], show_progress=show_progress
        )
        scores = scored.logits if raw_scores else sigmoid(scored.logits)
        order = np.argsort(-scored.logits, kind="stable")[:top_n]
        return [RankedDocument(int(i), float(scores[i]), kept[i], int(scored.truncated_tokens[i])) for i in order]

    def logits(
        self,
        pairs: Iterable[Sequence[str]],
        *,
        max_length: int | None = None,
        query_max_length: int | None = None,
        batch_size: int | None = None,
        show_progress: bool | None = None,
    ) -> PairLogits:
        """Run the model on pairs: what `score` and `rank` are made of.

        Args:
            pairs: (query, document) pairs.
            max_length: most tokens of a pair; the reranker's own if None.
            query_max_length: most tokens of a query; three quarters of max_length if None.
            batch_size: most pairs computed at once, beside the token budget.
            show_progress: a progress bar on stderr; on a terminal and after a second if None.

        Raises:
            InputError: something is not a pair of texts, or a limit is out of range.
            NonFiniteScoreError: the model produced NaN or infinity.
        """
        limits = Limits(self._checked_length(self.max_length if max_length is None else max_length), query_max_length)
        if batch_size is not None:
            require_whole_number("batch_size", batch_size)
        checked = check_pairs(pairs)
        compute = partial(self._compute, limits=limits, batch_size=batch_size, show_progress=show_progress)
        found = compute(checked) if self._cached is None else self._cached.complete(checked, limits, compute)
        hint = f"In {self.dtype} an activation may have overflowed, or the weights are damaged: try dtype='float32'"
        require_finite(found.logits, checked, hint)
        return found

    def _compute(
        self, pairs: Sequence[tuple[str, str]], limits: Limits, batch_size: int | None, show_progress: bool | None
    ) -> PairLogits:
        """Encode pairs and run the model on them."""
        encoded = self.encoder.encode(pairs, limits)
        batches = plan_batches(encoded.lengths, self.token_budget, 1 if self.deterministic else batch_size)
        padded = (pad([encoded.sequences[i] for i in batch], self.config.pad_token_id) for batch in batches)
        distinct = np.empty(len(encoded.sequences), dtype=np.float32)
        quiet = None if show_progress is None else not show_progress
        delay = _PROGRESS_DELAY if show_progress is None else 0.0
        with tqdm(total=len(distinct), desc="Scoring", unit="pair", disable=quiet, delay=delay, leave=False) as bar:
            for batch, logits in zip(batches, self.engine.run(padded), strict=True):
                distinct[batch] = logits
                bar.update(len(batch))
        return PairLogits(distinct[encoded.inverse], encoded.truncated_tokens)

    def _open_cache(self, path: str | Path, checkpoint: Checkpoint) -> "CachedLogits":
        """Return this model's part of a score cache."""
        from mlx_rerank.lookup import CachedLogits, Computation  # here, because some builds of Python have no sqlite
        from mlx_rerank.score_cache import ScoreCache

        cache = ScoreCache(path)
        fingerprint = checkpoint.fingerprint(cache.digest)
        return CachedLogits(cache, Computation(fingerprint, self.dtype, self.device, self.deterministic))

    def _checked_length(self, max_length: int) -> int:
        """Return max_length, or raise InputError where the model has no positions for it."""
        if require_whole_number("max_length", max_length, least=0) > self.config.max_length:
            raise InputError(
                f"max_length {max_length} exceeds this model's limit of {self.config.max_length} tokens: "
                "use a smaller value, or a model with more positions"
            )
        return Limits(max_length).max_length


def log_truncation(truncated_tokens: np.ndarray, max_length: int) -> None:
    """Log a warning where pairs were cut and the return value cannot say so."""
    cut = int(np.count_nonzero(truncated_tokens))
    if cut:
        logger.warning(
            "%d of %d pairs were cut to %d tokens; %d tokens were not read",
            cut, len(truncated_tokens), max_length, int(truncated_tokens.sum()),
        )  # fmt: skip
