"""Reranker: texts in, comparable scores out."""

import threading
from collections.abc import Generator, Iterable, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import overload

import numpy as np

from mlx_rerank import copies, hub
from mlx_rerank.batching import plan_batches
from mlx_rerank.budget import default_token_budget
from mlx_rerank.checkpoint import Checkpoint
from mlx_rerank.device import parse_device
from mlx_rerank.dtypes import default_dtype, dtype_name, parse_dtype
from mlx_rerank.engine import Engine
from mlx_rerank.errors import InputError, require_whole_number
from mlx_rerank.pairs import Limits, PairEncoder, check_pairs, checked_length, document_text, pairs_of, require_sequence
from mlx_rerank.pipeline import Pipeline
from mlx_rerank.results import Document, PairLogits, RankedDocument, ScoredPair, log_truncation, sigmoid
from mlx_rerank.stopping import Stop

DEFAULT_MAX_LENGTH = 512


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
        embeddings: str | None = None,
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
            token_budget: most padded tokens computed at once; by the model's shape, the device and its memory if None
                (budget.py). More needs more memory, and stops later when a call is to end.
            deterministic: compute every pair in a batch of its own, unpadded, so that its logit depends on nothing but
                the pair, bit for bit. Otherwise the pairs beside it decide the shapes that are multiplied, and with
                them the order of sums: in float32 a logit moves by 1e-5 at most (tests/test_invariance.py).
            embeddings: "resident" holds the word embeddings in memory, as all else. "mapped" leaves them in their file,
                of which only the rows that a batch asks for are read; the scores are the same bits. If None, tables
                of more than 64 MB are mapped. The file may be deleted or renamed meanwhile, but not overwritten.
            revision: branch, tag or commit of a hub model.
            cache_dir: where hub downloads are kept.
            score_cache: a file in which scores are kept and looked up, by this process and others; made if it is not
                there. A score that was found has the bits that it was computed with, whatever was beside it then.

        Raises:
            CheckpointNotFoundError: the model's name leads nowhere.
            CheckpointError: its files cannot be used.
            UnsupportedModelError: it is not a single-label XLM-RoBERTa cross-encoder.
            DeviceError: this machine has no such device.
            InputError: the dtype is unknown, a limit is out of range, the embeddings cannot be mapped, or score_cache
                is another program's database.
            MissingDependencyError: the checkpoint needs torch to be read.
        """
        mlx_device = parse_device(device)
        mlx_dtype = parse_dtype(dtype) if dtype else default_dtype(mlx_device)
        checkpoint = Checkpoint.open(hub.resolve(model, revision=revision, cache_dir=cache_dir))
        self.config = checkpoint.config
        self.dtype = dtype_name(mlx_dtype)
        self.device = "gpu" if mlx_device.type == mlx_device.type.gpu else "cpu"
        default_length = min(DEFAULT_MAX_LENGTH, self.config.max_length)
        self.max_length = checked_length(default_length if max_length is None else max_length, self.config)
        usual = default_token_budget(self.config, mlx_device, mlx_dtype, self.max_length)
        self.token_budget = usual if token_budget is None else token_budget
        if not isinstance(deterministic, bool):
            raise InputError(f"deterministic must be True or False, not {deterministic!r}")
        self.deterministic = deterministic
        plan_batches(np.array([]), self.token_budget)  # refuses a bad budget now, not at the first score
        self.encoder = PairEncoder.from_directory(checkpoint.directory, self.config)
        self._cached = None
        if score_cache is not None:
            from mlx_rerank.lookup import CachedLogits  # here, because some builds of Python have no sqlite

            self._cached = CachedLogits.open(score_cache, checkpoint, self.dtype, self.device, deterministic)
        load = partial(Engine, dtype=mlx_dtype, device=mlx_device, embeddings=embeddings)
        self.engine = copies.load(checkpoint, self.dtype, mlx_device, load)
        self.embeddings = self.engine.embeddings

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self.engine.loaded

    def unload(self) -> None:
        """Free the memory of the weights, which the next batch, whoever's it is, loads again.

        Raises:
            DeviceError: this process is a fork.
        """
        self.engine.unload()

    @overload
    def score(
        self,
        pairs: str,
        document: str,
        /,
        *,
        raw_scores: bool = ...,
        show_progress: bool | None = ...,
        timeout: float | None = ...,
        cancel: threading.Event | None = ...,
    ) -> float: ...
    @overload
    def score(
        self,
        pairs: Iterable[Sequence[str]],
        /,
        *,
        raw_scores: bool = ...,
        show_progress: bool | None = ...,
        timeout: float | None = ...,
        cancel: threading.Event | None = ...,
    ) -> np.ndarray: ...
    def score(
        self,
        pairs: str | Iterable[Sequence[str]],
        document: str | None = None,
        /,
        *,
        raw_scores: bool = False,
        show_progress: bool | None = None,
        timeout: float | None = None,
        cancel: threading.Event | None = None,
    ) -> float | np.ndarray:
        """Score pairs: `score([(query, document), ...])`, or one: `score(query, document)`.

        Args:
            pairs: (query, document) pairs; or one query, with its document as second argument.
            document: the document of a single query.
            raw_scores: return logits instead of their sigmoid.
            show_progress: a progress bar on stderr; on a terminal and after a second if None.
            timeout: seconds after which to stop; never if None.
            cancel: an event to stop at, which another thread may set.

        Returns:
            float32 [N], higher is more relevant, in 0..1 unless raw; a float for a single pair.

        Raises:
            InputError: something is not a pair of texts.
            NonFiniteScoreError: the model produced NaN or infinity.
            DeadlineError, CancelledError: it was time to stop; the error holds what was scored.
        """
        single = isinstance(pairs, str) and document is not None
        if not single and (isinstance(pairs, str) or document is not None):
            raise InputError("score takes a list of (query, document) pairs, or a query and a document")
        given = [(pairs, document)] if single else pairs
        scored = self.logits(given, show_progress=show_progress, timeout=timeout, cancel=cancel)  # pyright: ignore[reportArgumentType]
        log_truncation(scored.truncated_tokens, self.max_length)
        scores = scored.logits if raw_scores else sigmoid(scored.logits)
        return float(scores[0]) if single else scores

    def score_stream(
        self,
        pairs: Iterable[Sequence[str]],
        *,
        raw_scores: bool = False,
        timeout: float | None = None,
        cancel: threading.Event | None = None,
    ) -> Generator[ScoredPair, None, None]:
        """Score pairs as they come and yield each as soon as it is scored; a score cache has no part in it.

        Closing the iterator stops the work. Where reading the pairs fails, those before the failure come first.

        Args:
            pairs: (query, document) pairs, however many: they are read a thousand at a time, and not kept.
            raw_scores: give logits instead of their sigmoid.
            timeout: seconds from now after which to stop; never if None.
            cancel: an event to stop at, which another thread may set.

        Raises:
            InputError: something is not a pair of texts.
            NonFiniteScoreError: the model produced NaN or infinity.
            DeadlineError, CancelledError: it was time to stop; the error holds what was scored.
        """
        return self._pipeline(pairs, Limits(self.max_length), None, Stop(timeout, cancel)).stream(raw_scores)

    def rank(
        self,
        query: str,
        documents: Iterable[Document],
        *,
        top_n: int | None = None,
        raw_scores: bool = False,
        show_progress: bool | None = None,
        timeout: float | None = None,
        cancel: threading.Event | None = None,
    ) -> list[RankedDocument]:
        """Rank documents by their relevance to a query.

        Args:
            query: what is asked.
            documents: texts, or mappings with a `text` key; they come back untouched.
            top_n: how many to return; all if None.
            raw_scores: give logits instead of their sigmoid.
            show_progress: a progress bar on stderr; on a terminal and after a second if None.
            timeout: seconds after which to stop; never if None.
            cancel: an event to stop at, which another thread may set.

        Returns:
            The best first; equal scores in the order given.

        Raises:
            InputError: a document is neither, or top_n is below one.
            NonFiniteScoreError: the model produced NaN or infinity.
            DeadlineError, CancelledError: it was time to stop; the error holds what was scored.
        """
        if top_n is not None:
            require_whole_number("top_n", top_n)
        if not isinstance(query, str):
            raise InputError(f"query must be a text, not {type(query).__name__} {str(query)[:60]!r}")
        require_sequence("documents", documents)
        kept = list(documents)
        pairs = [(query, document_text(document, i)) for i, document in enumerate(kept)]
        scored = self.logits(pairs, show_progress=show_progress, timeout=timeout, cancel=cancel)
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
        timeout: float | None = None,
        cancel: threading.Event | None = None,
    ) -> PairLogits:
        """Run the model on pairs: what `score` and `rank` are made of.

        Args:
            pairs: (query, document) pairs.
            max_length: most tokens of a pair; the reranker's own if None.
            query_max_length: most tokens of a query; three quarters of max_length if None.
            batch_size: most pairs computed at once, beside the token budget.
            show_progress: a progress bar on stderr; on a terminal and after a second if None.
            timeout: seconds after which to stop; never if None.
            cancel: an event to stop at, which another thread may set.

        Raises:
            InputError: something is not a pair of texts, or a limit is out of range.
            NonFiniteScoreError: the model produced NaN or infinity.
            DeadlineError, CancelledError: it was time to stop; the error holds what was scored.
        """
        stop = Stop(timeout, cancel)
        longest = self.max_length if max_length is None else max_length
        limits = Limits(checked_length(longest, self.config), query_max_length)
        if batch_size is not None:
            require_whole_number("batch_size", batch_size)
        if self._cached is None:
            return self._pipeline(pairs, limits, batch_size, stop).gather(show_progress)
        return self._cached.complete(
            check_pairs(pairs),
            limits,
            lambda some: self._pipeline(some, limits, batch_size, stop).gather(show_progress),
        )

    def _pipeline(self, pairs: Iterable[Sequence[str]], limits: Limits, batch_size: int | None, stop: Stop) -> Pipeline:
        """Return the work on pairs."""
        return Pipeline(
            self.encoder,
            self.engine,
            pairs_of(pairs),
            limits=limits,
            token_budget=self.token_budget,
            max_rows=batch_size,
            deterministic=self.deterministic,
            stop=stop,
            total=len(pairs) if isinstance(pairs, Sized) else None,
            hint=f"In {self.dtype} an activation may have overflowed, or the weights are damaged: try dtype='float32'",
        )
