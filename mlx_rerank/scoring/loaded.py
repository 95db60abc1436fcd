"""A loaded model: limits and pairs in, logits out."""

from collections.abc import Iterable, Sequence, Sized
from functools import partial
from pathlib import Path

import numpy as np

from mlx_rerank.checkpoints import copies, hub
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.device.names import parse_device
from mlx_rerank.dtypes import default_dtype, dtype_name, parse_dtype
from mlx_rerank.errors import InputError
from mlx_rerank.pairs.arguments import check_pairs, iterate_pairs, require_whole_number
from mlx_rerank.pairs.batching import plan_batches
from mlx_rerank.pairs.encoder import PairEncoder
from mlx_rerank.pairs.limits import Limits, LongDocuments, checked_length, parse_long_documents
from mlx_rerank.scoring.budget import default_token_budget
from mlx_rerank.scoring.engine import Engine
from mlx_rerank.scoring.explanation import Explanation
from mlx_rerank.scoring.occlusion import explain
from mlx_rerank.scoring.pipeline import Pipeline
from mlx_rerank.scoring.results import PairLogits
from mlx_rerank.scoring.stopping import Stop

DEFAULT_MAX_LENGTH = 512


class Scorer:
    """A model with its tokeniser, on its device, and all that decides how pairs are computed."""

    def __init__(
        self,
        model: str | Path,
        *,
        dtype: str | None,
        device: str | None,
        max_length: int | None,
        long_documents: LongDocuments | str,
        token_budget: int | None,
        deterministic: bool,
        embeddings: str | None,
        revision: str | None,
        cache_dir: str | Path | None,
        score_cache: str | Path | None,
    ) -> None:
        """Load a model; arguments and errors are those of `Reranker`."""
        mlx_device = parse_device(device)
        mlx_dtype = parse_dtype(dtype) if dtype else default_dtype(mlx_device)
        checkpoint = Checkpoint.open(hub.resolve(model, revision=revision, cache_dir=cache_dir))
        self.config = checkpoint.config
        self.dtype = dtype_name(mlx_dtype)
        self.device = "gpu" if mlx_device.type == mlx_device.type.gpu else "cpu"
        default_length = min(DEFAULT_MAX_LENGTH, self.config.max_length)
        longest = checked_length(default_length if max_length is None else max_length, self.config)
        self.limits = Limits(longest, long_documents=parse_long_documents(long_documents))
        usual = default_token_budget(self.config, mlx_device, mlx_dtype, longest)
        self.token_budget = usual if token_budget is None else token_budget
        if not isinstance(deterministic, bool):
            raise InputError(f"deterministic must be True or False, not {deterministic!r}")
        self.deterministic = deterministic
        plan_batches(np.array([]), self.token_budget)  # refuses a bad budget now, not at the first score
        self.encoder = PairEncoder.from_directory(checkpoint.directory, self.config)
        self._cached = None
        if score_cache is not None:
            from mlx_rerank.scoring.cached_logits import (
                CachedLogits,  # here, because some builds of Python have no sqlite
            )

            self._cached = CachedLogits.open(score_cache, checkpoint, self.dtype, self.device, deterministic)
        load = partial(Engine, dtype=mlx_dtype, device=mlx_device, embeddings=embeddings)
        self.engine = copies.load(checkpoint, self.dtype, mlx_device, load)

    def logits(
        self,
        pairs: Iterable[Sequence[str]],
        limits: Limits,
        stop: Stop,
        *,
        batch_size: int | None = None,
        show_progress: bool | None = None,
    ) -> PairLogits:
        """Return the logits of pairs, those of the score cache looked up; arguments and errors as `Reranker.logits`."""
        if batch_size is not None:
            require_whole_number("batch_size", batch_size)
        if self._cached is None:
            return self.pipeline(pairs, limits, stop, batch_size).gather(show_progress)
        return self._cached.complete(
            check_pairs(pairs),
            limits,
            lambda some: self.pipeline(some, limits, stop, batch_size).gather(show_progress),
        )

    def explain(self, query: str, document: str, limits: Limits, stop: Stop, max_passes: int) -> Explanation:
        """Return which words carried a score; arguments and errors as `Reranker.explain`."""
        return explain(
            self.encoder,
            self.engine,
            query,
            document,
            limits=limits,
            token_budget=self.token_budget,
            deterministic=self.deterministic,
            stop=stop,
            max_passes=max_passes,
        )

    def pipeline(
        self, pairs: Iterable[Sequence[str]], limits: Limits, stop: Stop, batch_size: int | None = None
    ) -> Pipeline:
        """Return the work on pairs, in which a score cache has no part."""
        return Pipeline(
            self.encoder,
            self.engine,
            iterate_pairs(pairs),
            limits=limits,
            token_budget=self.token_budget,
            max_rows=batch_size,
            deterministic=self.deterministic,
            stop=stop,
            total=len(pairs) if isinstance(pairs, Sized) else None,
            hint=f"In {self.dtype} an activation may have overflowed, or the weights are damaged: try dtype='float32'",
        )
