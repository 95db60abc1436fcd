"""Reranker: texts in, comparable scores out."""

import threading
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from mlx_rerank.pairs.arguments import Document, pairs_to_rank, pairs_to_score
from mlx_rerank.pairs.limits import Limits, LongDocuments
from mlx_rerank.pairs.switches import require_boolean
from mlx_rerank.scoring.awaiting import in_thread
from mlx_rerank.scoring.explanation import Explanation
from mlx_rerank.scoring.first_stage import FirstStage
from mlx_rerank.scoring.loaded import LoadedModel, ModelOptions
from mlx_rerank.scoring.occlusion import MAX_PASSES
from mlx_rerank.scoring.results import PairLogits, RankedDocument, ScoredPair, Selection, log_truncation
from mlx_rerank.scoring.stopping import Control, Stop

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Reranker:
    """A cross-encoder that scores and ranks documents for a query.

    Safe to use from several threads at once: they share one device thread, and their batches take turns. Pickled, or
    copied deeply, it is loaded again, from the same files.
    """

    def __init__(
        self,
        model: str | Path = "mini",
        *,
        dtype: str | None = None,
        device: str | None = None,
        max_length: int | None = None,
        long_documents: LongDocuments | str = "truncate",
        token_budget: int | None = None,
        deterministic: bool = False,
        embeddings: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        score_cache: str | Path | None = None,
        cpu_threads: int | None = None,
        template: str | None = None,
        instruction: str | None = None,
        first_stage: "str | Path | Reranker | None" = None,
        keep: int | None = None,
    ) -> None:
        """Load a model.

        Args:
            model: an embedded model's name ("mini"), a hub id, a Hugging Face directory (converted in memory), or a
                directory that `mlx-rerank convert` wrote.
            dtype: "float16", "bfloat16" or "float32"; float16 on a GPU and float32 on a CPU if None.
            device: "gpu" or "cpu"; MLX's default one if None.
            max_length: most tokens of a pair, special ones included; if None, 512, or the model's or tokenizer's limit.
            long_documents: what becomes of a document that does not fit: "truncate" leaves its end unread; "windows" or
                `Windows(...)` reads it in parts that overlap, and takes the best one's score; "error" refuses it.
            token_budget: most padded tokens computed at once, more of which need more memory; if None, see budget.py.
            deterministic: compute every pair in a batch of its own, so that nothing but the pair decides its logit, bit
                for bit. Otherwise pairs beside it move a float32 logit of trained weights by 1e-5 at most.
            embeddings: "resident" holds the word embeddings in memory; "mapped" leaves them in their file, which is not
                to be overwritten, and reads the rows that a batch needs, for the same bits; by size if None.
            revision: branch, tag or commit of a hub model.
            cache_dir: where hub downloads are kept.
            score_cache: a file, made if need be, that keeps scores, as they were first computed, for all processes.
            cpu_threads: cores of a CPU to use, on Linux; if None, this process's share of them (device/cores.py).
            template: the prompt that a language model was trained to rerank with, where its files do not say.
            instruction: what such a model is told to do; what its template says if None.
            first_stage: a faster model that chooses which candidates of `rank` this one scores; the others are left
                out, as scores of two models cannot be compared. A name is loaded with these options, except revision,
                template and instruction, and max_length cut to its limit; a Reranker keeps its own.
            keep: candidates that the first stage chooses, 20 if None; if there are no more, it is skipped.

        Raises:
            CheckpointNotFoundError: the model's name leads nowhere.
            CheckpointError: its files cannot be used.
            UnsupportedModelError: it is not a single-label cross-encoder of a family that is run here.
            DeviceError: this machine has no such device.
            InputError: an option is unknown, out of range, or of no use with this model.
            MissingDependencyError: the checkpoint needs torch to be read.
        """
        options = ModelOptions(
            dtype=dtype, device=device, max_length=max_length, long_documents=long_documents, token_budget=token_budget,
            deterministic=deterministic, embeddings=embeddings, revision=revision, cache_dir=cache_dir,
            score_cache=score_cache, cpu_threads=cpu_threads, template=template, instruction=instruction,
        )  # fmt: skip
        self.first_stage = FirstStage.load(first_stage, keep, options)
        self.model = LoadedModel(model, options)
        self.config, self.dtype, self.device = self.model.shape, self.model.dtype, self.model.device
        self.limits, self.max_length = self.model.limits, self.model.limits.max_length

    encoder = property(attrgetter("model.encoder"), doc="What turns pairs into token ids.")
    engine = property(attrgetter("model.engine"), doc="What computes.")
    engines = property(lambda self: [of.model.engine for of in (self, self.first_stage) if of], doc="Of all stages.")
    loaded = property(lambda self: any(engine.loaded for engine in self.engines), doc="Whether weights are in memory.")
    embeddings = property(attrgetter("model.engine.embeddings"), doc='Where word embeddings are: "resident", "mapped".')
    token_budget = property(attrgetter("model.token_budget"), doc="Most padded tokens of a batch.")
    deterministic = property(attrgetter("model.deterministic"), doc="Whether each pair is computed alone.")

    def unload(self) -> None:
        """Free the memory of the weights, the first stage's too; the next batch of any caller loads them again.

        Raises:
            DeviceError: this process is a fork.
        """
        for engine in self.engines:
            engine.unload()

    @overload
    def score(self, pairs: str, document: str, /, *, raw_scores: bool = ..., **control: "Unpack[Control]") -> float: ...
    @overload
    def score(
        self, pairs: Iterable[Sequence[str]], /, *, raw_scores: bool = ..., **control: "Unpack[Control]"
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
            raw_scores: return logits instead of scores in 0..1.
            show_progress: a progress bar on stderr; on a terminal and after a second if None.
            timeout: seconds after which to stop; never if None.
            cancel: an event to stop at, which another thread may set.

        Returns:
            float32 [N], higher is more relevant, in 0..1 unless raw; a float for a single pair.

        Raises:
            InputError: something is not a pair of texts, or an argument is not of its kind.
            NonFiniteScoreError: the model produced NaN or infinity.
            DeadlineError, CancelledError: it was time to stop; the error holds what was scored.
        """
        raw, (given, single) = require_boolean("raw_scores", raw_scores), pairs_to_score(pairs, document)
        scored = self.logits(given, show_progress=show_progress, timeout=timeout, cancel=cancel)
        log_truncation(scored.truncated_tokens, self.max_length)
        scores = scored.scores(raw)
        return float(scores[0]) if single else scores

    def score_stream(
        self,
        pairs: Iterable[Sequence[str]],
        *,
        raw_scores: bool = False,
        timeout: float | None = None,
        cancel: threading.Event | None = None,
    ) -> Generator[ScoredPair, None, None]:
        """Score pairs as they come and yield each as soon as it is scored; the score cache is not used.

        Closing the iterator stops the work. Where reading the pairs fails, those before the failure come first.

        Args:
            pairs: (query, document) pairs, however many: they are read a thousand at a time, and not kept.
            raw_scores: give logits instead of scores in 0..1.
            timeout: seconds from now after which to stop; never if None.
            cancel: an event to stop at, which another thread may set.

        Raises:
            RerankError: as `score`; one that ends it in time holds no scores, as all were yielded.
        """
        require_boolean("raw_scores", raw_scores)
        return self.model.pipeline(pairs, self.limits, Stop(timeout, cancel)).stream(raw_scores)

    def rank(
        self,
        query: str,
        documents: Iterable[Document],
        *,
        top_n: int | None = None,
        threshold: float | None = None,
        raw_scores: bool = False,
        show_progress: bool | None = None,
        timeout: float | None = None,
        cancel: threading.Event | None = None,
    ) -> list[RankedDocument]:
        """Rank documents by their relevance to a query.

        Args:
            query: what is asked.
            documents: texts, or mappings with a `text` key; they come back untouched.
            top_n: how many to return; all if None. With a first stage at most what it keeps.
            threshold: the lowest score of those returned, in 0..1, or a logit with raw_scores; any if None.
            raw_scores: give logits instead of scores in 0..1.
            show_progress: a progress bar on stderr, one a stage; on a terminal and after a second if None.
            timeout: seconds after which to stop, whatever the stage; never if None.
            cancel: an event to stop at, which another thread may set.

        Returns:
            The best first; equal scores in the order given. With a first stage only what it keeps.

        Raises:
            InputError: a document is neither, top_n is below one or above keep, or threshold cannot be a score.
            NonFiniteScoreError: the model produced NaN or infinity.
            DeadlineError, CancelledError: it was time to stop; the error holds what this model scored.
        """
        wanted = Selection(top_n, threshold, raw_scores)
        return self._rank(query, documents, wanted, Stop(timeout, cancel), show_progress)

    async def arank(
        self,
        query: str,
        documents: Iterable[Document],
        *,
        top_n: int | None = None,
        threshold: float | None = None,
        raw_scores: bool = False,
        timeout: float | None = None,
    ) -> list[RankedDocument]:
        """Rank documents as `rank` does, without holding up the event loop.

        Any number of calls may wait at once; a few run at a time, in the order they came. A cancelled task stops its
        work at the next batch.

        Args:
            query: like all but the last as for `rank`.
            documents: not to be changed meanwhile.
            top_n: how many to return.
            threshold: the lowest score of those returned.
            raw_scores: give logits.
            timeout: seconds from the call on, waiting included; never if None.

        Raises:
            RerankError: as `rank`.
        """
        wanted, cancel = Selection(top_n, threshold, raw_scores), threading.Event()
        return await in_thread(partial(self._rank, query, documents, wanted, Stop(timeout, cancel), False), cancel)

    def explain(
        self,
        query: str,
        document: str,
        *,
        max_passes: int = MAX_PASSES,
        timeout: float | None = None,
        cancel: threading.Event | None = None,
    ) -> Explanation:
        """Return which words carried a score: how much the logit falls when each is hidden.

        Args:
            query: what is asked.
            document: what is scored.
            max_passes: most times that the pair is computed; if they are too few for its words, sentences come first.
            timeout: seconds after which to stop; never if None.
            cancel: an event to stop at, which another thread may set.

        Raises:
            RerankError: as `mlx_rerank.scoring.occlusion.explain`.
        """
        return self.model.explain(query, document, self.limits, Stop(timeout, cancel), max_passes)

    def logits(
        self,
        pairs: Iterable[Sequence[str]],
        *,
        limits: Limits | None = None,
        batch_size: int | None = None,
        show_progress: bool | None = None,
        timeout: float | None = None,
        cancel: threading.Event | None = None,
    ) -> PairLogits:
        """Run the model on pairs; `score` and `rank` are made of this.

        Args:
            pairs: (query, document) pairs.
            limits: lengths to cut to; the reranker's own if None.
            batch_size: most pairs computed at once, beside the token budget.
            show_progress: a progress bar on stderr; on a terminal and after a second if None.
            timeout: seconds after which to stop; never if None.
            cancel: an event to stop at, which another thread may set.

        Raises:
            RerankError: as `score`; an InputError also where a limit is out of range.
        """
        stop, limits = Stop(timeout, cancel), self.limits if limits is None else limits
        return self.model.logits(pairs, limits, stop, batch_size=batch_size, show_progress=show_progress)

    def _rank(
        self, query: str, documents: Iterable[Document], wanted: Selection, stop: Stop, progress: bool | None
    ) -> list[RankedDocument]:
        """Check what is to be ranked, and rank it."""
        given, pairs = pairs_to_rank(query, documents)
        if self.first_stage:
            return self.first_stage.rank(self.model, given, pairs, wanted, stop, progress)
        return self.model.logits(pairs, self.limits, stop, show_progress=progress).ranking(given, wanted)
