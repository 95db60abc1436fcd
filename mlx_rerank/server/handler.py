"""The one way from a request to its answer, whatever the client's dialect."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from mlx_rerank.errors import ChangedCheckpointError, InputError, NonFiniteScoreError, RefusedError
from mlx_rerank.pairs.encoded import EncodedPairs
from mlx_rerank.scoring.awaiting import in_thread
from mlx_rerank.scoring.explanation import Explanation
from mlx_rerank.scoring.results import require_finite
from mlx_rerank.scoring.stopping import Stop
from mlx_rerank.server import dialects
from mlx_rerank.server.dialects import Dialect
from mlx_rerank.server.pool import Pool
from mlx_rerank.server.ranked import Ranked
from mlx_rerank.server.reading import Bounds, check, check_windows, limits_of, text_in, too_long
from mlx_rerank.server.schema import ExplainRequest, Request, RerankRequest, ScoreRequest
from mlx_rerank.server.served import Served
from mlx_rerank.server.tokenising import Tokeniser

T = TypeVar("T")
_LONGEST_WAIT = 60  # seconds that a client is told to wait at the most


@dataclass(frozen=True)
class Work:
    """What a request has taken.

    Args:
        model: that it ran on.
        pairs: that were scored.
        tokens: that were computed; equal pairs count once.
        truncated: pairs that were not read as a whole.
        queue_seconds: from being tokenised to its first batch.
        inference_seconds: from its first batch to its last logit.
        total_seconds: from being read to its last logit.
    """

    model: str
    pairs: int
    tokens: int
    truncated: int
    queue_seconds: float
    inference_seconds: float
    total_seconds: float


@dataclass(frozen=True)
class Answer:
    """The logits and scores of a request's pairs, in its order, the spans that they cover, and what they took."""

    logits: np.ndarray
    scores: np.ndarray
    spans: np.ndarray
    encoded: EncodedPairs
    work: Work


class Handler:
    """Answers requests from a pool of models."""

    def __init__(self, pool: Pool, bounds: Bounds) -> None:
        """Take the models and what may be asked of them."""
        self.pool, self.bounds = pool, bounds
        self.draining = False  # whether new requests are refused, as the server is about to stop
        self.under_way = 0  # requests, from their head to the end of their answer
        self._tokeniser = Tokeniser()

    async def close(self) -> None:
        """End all threads, when no request is under way any more."""
        self._tokeniser.close()
        await self.pool.close()

    def require_service(self) -> None:
        """Raise RefusedError where new requests are not served."""
        if self.draining:
            raise self.stopping()
        self.pool.require_ready()

    @staticmethod
    def stopping() -> RefusedError:
        """Return the error for a request that comes too late."""
        return RefusedError(503, "stopping", "the server is stopping: try again when it is back", retry_after=5)

    async def rerank(self, request: RerankRequest, dialect: Dialect) -> tuple[Any, Work]:
        """Rank documents.

        Returns:
            What to write as JSON, and what it took.

        Raises:
            RefusedError: the request cannot be served; it says why.
        """
        field = "texts" if request.texts is not None else dialect.wire.documents if dialect.wire else "documents"
        texts = [text_in(document, i, request, field) for i, document in enumerate(request.given)]
        scored = await self._score(request, [(request.query, text) for text in texts], ("query", field))
        order = np.argsort(-scored.logits, kind="stable")[: request.limit]
        tokens = scored.encoded.tokens
        columns = (scored.scores, tokens, scored.encoded.truncated_tokens, scored.encoded.share_read, scored.spans)
        rows = [tuple(column[i].tolist() for column in columns) for i in order]
        ranked = [
            Ranked(int(i), score, request.given[i], texts[i], *rest)
            for i, (score, *rest) in zip(order, rows, strict=True)
        ]
        asked = request.return_text if request.return_documents is None else request.return_documents
        documents = dialect.return_documents if asked is None else asked
        name = request.model or scored.work.model
        return dialects.ranking(dialect, name, ranked, int(tokens.sum()), documents=documents), scored.work

    async def score(self, request: ScoreRequest, dialect: Dialect) -> tuple[Any, Work]:
        """Score pairs; as `rerank`."""
        left, right = request.sides
        if len(left) == 1 or not right:
            left = left[:1] * len(right)
        if len(left) != len(right):
            message = f"text_1 has {len(left)} texts and text_2 has {len(right)}: give one, or as many on both sides"
            raise RefusedError(422, "invalid_request", message, param="text_1")
        scored = await self._score(request, list(zip(left, right, strict=True)), ("text_1", "text_2"))
        cut = scored.encoded.truncated_tokens.tolist()
        name = request.model or scored.work.model
        tokens = int(scored.encoded.tokens.sum())
        return dialects.scores(dialect, name, scored.scores.tolist(), cut, tokens), scored.work

    async def explain(self, request: ExplainRequest) -> tuple[Any, Work]:
        """Weigh the words of a pair; as `rerank`. It counts as many pairs as it may compute."""
        check(self.bounds, [(request.query, request.document)], ("query", "document"))
        found, work = await self._in_turn(request, request.max_passes, partial(self._explained, request))
        return dialects.explanation(request.model or work.model, found), work

    async def _score(self, request: Request, pairs: Sequence[tuple[str, str]], fields: tuple[str, str]) -> Answer:
        """Score pairs, whose two sides the client calls so."""
        check(self.bounds, pairs, fields)
        return await self._in_turn(request, len(pairs), partial(self._computed, request, pairs, fields[1]))

    async def _in_turn(self, request: Request, pairs: int, compute: Callable[[Served], Coroutine[Any, Any, T]]) -> T:
        """Compute something in time, if the queue of the model that is asked for has room."""
        self.pool.require_ready()
        served = self.pool.named(request.model)
        if served.pairs and served.pairs + pairs > self.bounds.queue:
            wait = _wait_for(served)
            message = f"{served.pairs} documents are waiting: try again in {wait} s, or send fewer at a time"
            raise RefusedError(429, "queue_full", message, retry_after=wait)
        served.pairs += pairs
        try:
            return await asyncio.wait_for(compute(served), self.bounds.timeout)
        except asyncio.TimeoutError:
            message = f"this took longer than the {self.bounds.timeout:g} s that a request may: send less, or try later"
            raise RefusedError(504, "timeout", message) from None
        except ChangedCheckpointError:
            message = f"the files of {served.spec.name} have changed: it is loaded again; try again in a moment"
            raise RefusedError(503, "model_changed", message, retry_after=1) from None
        except NonFiniteScoreError as error:
            raise RefusedError(500, "non_finite_score", str(error)) from None
        except InputError as error:
            raise RefusedError(422, "invalid_request", str(error)) from None
        finally:
            served.pairs -= pairs

    async def _explained(self, request: ExplainRequest, served: Served) -> tuple[Explanation, Work]:
        """Weigh the words of a pair, in a thread that stops when nobody waits any more."""
        begin = time.monotonic()
        async with self.pool.use(served):
            assert served.reranker
            model, limits, cancel = served.reranker.model, limits_of(request, served.reranker), threading.Event()
            texts = request.query, request.document
            work = partial(model.explain, *texts, limits, Stop(cancel=cancel), request.max_passes)
            found = await in_thread(work, cancel)
        if found.truncated_tokens and not request.may_cut:
            raise too_long(1, 1, limits, "document")
        seconds = time.monotonic() - begin
        return found, Work(served.spec.name, 1, 0, int(found.truncated_tokens > 0), 0.0, seconds, seconds)

    async def _computed(self, request: Request, pairs: Sequence[tuple[str, str]], field: str, served: Served) -> Answer:
        """Tokenise pairs, queue them, and wait for their scores."""
        begin = time.monotonic()
        async with self.pool.use(served):
            reranker, scheduler = served.reranker, served.scheduler
            assert reranker
            assert scheduler
            limits = limits_of(request, reranker)
            encoded = await self._tokeniser.encode(reranker.encoder, pairs, limits)
            truncated = int(np.count_nonzero(encoded.truncated_tokens))
            if truncated and not request.may_cut:
                raise too_long(truncated, len(pairs), limits, field)
            check_windows(request, encoded, field)
            job = scheduler.submit(encoded)
            logits, spans = encoded.combine(await asyncio.wrap_future(job.result), limits.best)
        end = time.monotonic()
        require_finite(logits, pairs, f"In {reranker.dtype} an activation may have overflowed: try a model in float32")
        started = job.started or job.queued
        work = Work(
            model=served.spec.name,
            pairs=len(pairs),
            tokens=int(encoded.lengths.sum()),
            truncated=truncated,
            queue_seconds=started - job.queued,
            inference_seconds=end - started,
            total_seconds=end - begin,
        )
        return Answer(logits, logits if request.raw else reranker.model.mapping(logits), spans, encoded, work)


def _wait_for(served: Served) -> int:
    """Return in how many seconds the queue will be shorter."""
    pace = served.scheduler.pace if served.scheduler else 0.0
    return min(_LONGEST_WAIT, max(1, math.ceil(served.pairs / pace) if pace else 1))
