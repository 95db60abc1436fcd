"""Haystack: a ranker for pipelines."""

import asyncio
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from mlx_rerank.device.optional import framework
from mlx_rerank.errors import InputError
from mlx_rerank.integrations import load, reading, without_reading
from mlx_rerank.pairs.arguments import require_sequence, require_whole_number
from mlx_rerank.pairs.switches import require_boolean
from mlx_rerank.scoring.reranker import Reranker
from mlx_rerank.scoring.results import RankedDocument

with framework("Haystack", extra="haystack"):
    from haystack import Document, component, default_from_dict, default_to_dict


@component
class MLXRanker:
    """A ranker that orders documents by their relevance to a query, in the place of any of Haystack's own.

    What it returns are copies. Their meta has `truncated_tokens`, if tokens of the query or the document were not read;
    and `relevant_span`, [start, end] in characters of the content, if the score covers only that part.

    Haystack 3 loads a saved pipeline with classes of other packages only where it is told to:
    `Pipeline.loads(text, allowed_modules=["mlx_rerank.integrations.haystack"])`.
    """

    def __init__(
        self,
        model: str | Path = "mini",
        *,
        top_k: int | None = None,
        scale_score: bool = True,
        score_threshold: float | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        options: dict[str, Any] | None = None,
    ) -> None:
        """Choose the model, which `warm_up` or the first run loads.

        Args:
            model: a model's name, as for `Reranker`.
            top_k: how many documents to return; all if None.
            scale_score: give scores in 0..1 instead of logits.
            score_threshold: the lowest score of a document that is returned, in 0..1 or a logit as `scale_score` says.
            meta_fields_to_embed: fields of the meta that are read before the content, where a document has them.
            embedding_separator: what stands between them, and before the content.
            options: keyword arguments of Reranker; plain values where the pipeline is to be saved.

        Raises:
            InputError: top_k is below one, or meta_fields_to_embed is no list.
        """
        self.model = str(model)
        self.top_k = None if top_k is None else require_whole_number("top_k", top_k)
        self.scale_score = require_boolean("scale_score", scale_score)
        self.score_threshold = score_threshold
        fields = [] if meta_fields_to_embed is None else meta_fields_to_embed
        require_sequence("meta_fields_to_embed", fields)
        self.meta_fields_to_embed = list(fields)
        self.embedding_separator = embedding_separator
        self.options = {} if options is None else dict(options)
        self._reranker: Reranker | None = None
        self._loading = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock behind where it is pickled or copied; a model that is loaded is loaded again there."""
        return {name: value for name, value in vars(self).items() if name != "_loading"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Have a lock of its own."""
        vars(self).update(state)
        self._loading = threading.Lock()

    def warm_up(self) -> None:
        """Load the model, once.

        Raises:
            RerankError: as `Reranker`; an unknown option is an InputError.
        """
        self._loaded()

    async def warm_up_async(self) -> None:
        """Load the model as `warm_up` does, without holding up the event loop."""
        await asyncio.to_thread(self._loaded)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict from which `from_dict` makes an equal component."""
        return default_to_dict(
            self,
            model=self.model,
            top_k=self.top_k,
            scale_score=self.scale_score,
            score_threshold=self.score_threshold,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
            options={name: str(value) if isinstance(value, Path) else value for name, value in self.options.items()},
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "MLXRanker":
        """Return the component that `to_dict` described."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        scale_score: bool | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """Rank documents by their relevance to a query.

        Args:
            query: what is asked.
            documents: what retrievers found. If several have one id, only the one with the highest score is ranked.
            top_k: as at construction, whose value holds if None; likewise the next two.
            scale_score: give scores in 0..1 instead of logits.
            score_threshold: the lowest score of a document that is returned.

        Returns:
            Under "documents" the best first, equal scores in the order given.

        Raises:
            InputError: top_k is below one, a document has no text, or the query is none.
            NonFiniteScoreError: the model produced NaN or infinity.
            RerankError: as `warm_up`.
        """
        candidates, how = self._candidates(documents), self._how(top_k, scale_score, score_threshold)
        return _answer(self._loaded().rank(query, candidates, show_progress=False, **how))

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        scale_score: bool | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """Rank documents as `run` does, without holding up the event loop; cancelling it stops the work."""
        candidates, how = self._candidates(documents), self._how(top_k, scale_score, score_threshold)
        reranker = await asyncio.to_thread(self._loaded) if self._reranker is None else self._reranker
        return _answer(await reranker.arank(query, candidates, **how))

    def _loaded(self) -> Reranker:
        """Return the model, which is loaded once however many threads ask for it."""
        with self._loading:
            if self._reranker is None:
                self._reranker = load(self.model, self.options)
            return self._reranker

    def _how(self, top_k: int | None, scale_score: bool | None, score_threshold: float | None) -> dict[str, Any]:
        """Return the arguments of a ranking."""
        return {
            "top_n": self.top_k if top_k is None else require_whole_number("top_k", top_k),
            "raw_scores": not require_boolean("scale_score", self.scale_score if scale_score is None else scale_score),
            "threshold": self.score_threshold if score_threshold is None else score_threshold,
        }

    def _candidates(self, documents: list[Document]) -> list[dict[str, Any]]:
        """Return the documents to rank: if several have one id, only the one that its retriever scored highest."""
        candidates: dict[str, dict[str, Any]] = {}
        for i, document in enumerate(documents):
            if document.content is None:
                raise InputError(
                    f"documents[{i}], id {document.id!r}, has no text: content is None; leave it out, or give it one"
                )
            fields = [document.meta.get(name) for name in self.meta_fields_to_embed]
            head = "".join(f"{field}{self.embedding_separator}" for field in fields if field is not None)
            other = candidates.get(document.id)
            if other is None or _retrieved(document) > _retrieved(other["document"]):
                candidates[document.id] = {"text": head + document.content, "head": len(head), "document": document}
        return list(candidates.values())


def _answer(ranking: list[RankedDocument]) -> dict[str, list[Document]]:
    """Return what the component puts out."""
    return {"documents": [_copy(result) for result in ranking]}


def _retrieved(document: Document) -> float:
    """Return the score that a retriever gave; a missing score is less than any."""
    return -math.inf if document.score is None else document.score


def _copy(result: RankedDocument) -> Document:
    """Return a document with what is known of its relevance."""
    candidate = cast(dict[str, Any], result.document)
    document, head = candidate["document"], candidate["head"]
    return replace(document, score=result.score, meta=without_reading(document.meta) | reading(result, head))
