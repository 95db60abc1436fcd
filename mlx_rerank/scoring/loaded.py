"""A loaded model: limits and pairs in, logits out."""

import logging
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_rerank.checkpoints import hub
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.device.names import parse_device
from mlx_rerank.dtypes import default_dtype, dtype_name, parse_dtype
from mlx_rerank.errors import ChangedCheckpointError
from mlx_rerank.pairs.arguments import check_pairs, iterate_pairs, require_whole_number
from mlx_rerank.pairs.batching import Batching
from mlx_rerank.pairs.limits import Limits, LongDocuments, checked_length, parse_long_documents
from mlx_rerank.pairs.switches import optional_boolean, require_boolean
from mlx_rerank.scoring.budget import default_token_budget
from mlx_rerank.scoring.engine import Engine
from mlx_rerank.scoring.explanation import Explanation
from mlx_rerank.scoring.occlusion import explain
from mlx_rerank.scoring.pipeline import Pipeline
from mlx_rerank.scoring.results import PairLogits
from mlx_rerank.scoring.stopping import Stop

logger = logging.getLogger("mlx_rerank")


@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded and computes: `Reranker`'s arguments of the same names."""

    dtype: str | None = None
    device: str | None = None
    max_length: int | None = None
    long_documents: LongDocuments | str = "truncate"
    token_budget: int | None = None
    deterministic: bool = False
    embeddings: str | None = None
    revision: str | None = None
    cache_dir: str | Path | None = None
    score_cache: str | Path | None = None
    cpu_threads: int | None = None
    template: str | None = None
    instruction: str | None = None

    def __post_init__(self) -> None:
        """Raise InputError for a value that no model can be loaded with."""
        object.__setattr__(self, "deterministic", require_boolean("deterministic", self.deterministic))
        for name in ("token_budget", "cpu_threads"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, require_whole_number(name, getattr(self, name)))
        parse_long_documents(self.long_documents)

    def absolute(self) -> "ModelOptions":
        """Return the same, with paths that hold in another working directory."""
        paths = {name: getattr(self, name) for name in ("cache_dir", "score_cache")}
        return replace(self, **{name: Path(path).absolute() for name, path in paths.items() if path is not None})

    @property
    def on(self) -> tuple[mx.Device, mx.Dtype]:
        """The device and the dtype asked for; if no dtype is, the device's usual one.

        Raises:
            DeviceError: this machine has no such device.
            InputError: the dtype is unknown.
        """
        device = parse_device(self.device)
        return device, default_dtype(device) if self.dtype is None else parse_dtype(self.dtype)


class LoadedModel:
    """A model with its tokeniser, on its device, and all that decides how pairs are computed.

    Pickled, or copied deeply, it is loaded again.
    """

    def __init__(self, model: str | Path, options: ModelOptions, identity: str | None = None) -> None:
        """Load a model; options and errors are those of `Reranker`.

        Args:
            model: as for `Reranker`.
            options: as for `Reranker`.
            identity: of the files that must be found there; any if None.

        Raises:
            ChangedCheckpointError: there are others.
        """
        device, dtype = options.on
        checkpoint = Checkpoint.open(
            model, revision=options.revision, cache_dir=options.cache_dir, template=options.template
        )
        self._directory, self._identity = checkpoint.directory.resolve(), checkpoint.identity.key
        if identity not in (None, self._identity):
            raise ChangedCheckpointError(
                f"{self._directory} is not what it was when this model was pickled or copied: a file was changed, or "
                "this is another machine; load the model by its name"
            )
        self.shape, self.mapping = checkpoint.shape, checkpoint.mapping
        self.encoder = checkpoint.encoder(options.instruction)
        self.dtype = dtype_name(dtype)
        self.device = "gpu" if device.type == device.type.gpu else "cpu"
        for remark in checkpoint.settings.remarks:
            logger.warning(remark)
        usual_length = checkpoint.settings.usual_length(self.shape.max_length, checkpoint.family.usual_length)
        longest = self.checked_length(usual_length if options.max_length is None else options.max_length)
        self.limits = Limits(longest, long_documents=parse_long_documents(options.long_documents))
        usual = default_token_budget(checkpoint.family.cost(self.shape), device, dtype, longest)
        self.token_budget = usual if options.token_budget is None else options.token_budget
        self.deterministic = options.deterministic
        self._cached = None
        if options.score_cache is not None:
            from mlx_rerank.scoring.cached_logits import CachedLogits  # here, because some Pythons have no sqlite

            self._cached = CachedLogits.open(
                options.score_cache, checkpoint, self.dtype, self.device, options.deterministic,
                self.encoder.frame.instruction,
            )  # fmt: skip
        self.engine = Engine(checkpoint, dtype, device, options.embeddings, options.cpu_threads)
        self._options = replace(options.absolute(), dtype=self.dtype, device=self.device, revision=None)

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how it is loaded again."""
        return type(self).again, self.recipe()

    @classmethod
    def again(cls, model: str | Path, options: ModelOptions, identity: str | None) -> "LoadedModel":
        """Load a model by its recipe. A commit of the hub is the same on every machine, and may be fetched there."""
        directory = Path(model)
        if repo := hub.repo_of(directory):
            identity = None
            if not directory.is_dir():
                model, options = repo, replace(options, revision=hub.commit_of(directory))
        return cls(model, options, identity)

    def recipe(self, **changes: Any) -> tuple[str | Path, ModelOptions, str | None]:
        """Return how an equal model is loaded in another process, which may have another working directory.

        Args:
            changes: options that are to differ.
        """
        options = replace(self._options, **changes)
        if embedded := [name for name, place in hub.EMBEDDED.items() if place.resolve() == self._directory]:
            return embedded[0], options, None
        return self._directory, options, self._identity

    def checked_length(self, max_length: int) -> int:
        """Return max_length, tokens of a pair.

        Raises:
            InputError: the model has no positions for it, or it leaves no room for text.
        """
        return checked_length(max_length, self.shape.max_length, self.encoder.frame.special_tokens)

    def batching(self, max_rows: int | None = None) -> Batching:
        """Return how rows are put into batches: each alone where logits are to be deterministic.

        Args:
            max_rows: most rows of a batch.
        """
        if self.deterministic:
            return Batching(self.token_budget, 1, 1)
        return Batching(self.token_budget, max_rows, self.engine.side_by_side)

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
        self.checked_length(limits.max_length)
        show_progress = optional_boolean("show_progress", show_progress)
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
            batching=self.batching(),
            mapping=self.mapping,
            stop=stop,
            max_passes=max_passes,
        )

    def pipeline(
        self, pairs: Iterable[Sequence[str]], limits: Limits, stop: Stop, batch_size: int | None = None
    ) -> Pipeline:
        """Return the work on pairs; it does not use the score cache."""
        return Pipeline(
            self.encoder,
            self.engine,
            iterate_pairs(pairs),
            limits=limits,
            batching=self.batching(batch_size),
            mapping=self.mapping,
            stop=stop,
            total=len(pairs) if isinstance(pairs, Sized) else None,
            hint=f"In {self.dtype} an activation may have overflowed, or the weights are damaged: try dtype='float32'",
        )
