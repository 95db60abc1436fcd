"""AnswerDotAI's rerankers: a ranker with their interface."""

from collections.abc import Iterable
from copy import copy
from pathlib import Path
from typing import Any

from mlx_rerank.device.optional import framework
from mlx_rerank.errors import InputError
from mlx_rerank.integrations import load, reading, without_reading
from mlx_rerank.pairs.arguments import require_sequence
from mlx_rerank.pairs.switches import require_boolean
from mlx_rerank.scoring.reranker import Reranker
from mlx_rerank.scoring.results import RankedDocument

with framework("rerankers", extra="rerankers"):
    from rerankers.documents import Document
    from rerankers.models.ranker import BaseRanker
    from rerankers.results import RankedResults, Result


class MLXRanker(BaseRanker):
    """A ranker to use in place of any that their `Reranker` function returns.

    The documents of its results are copies. Their metadata has `truncated_tokens`, if tokens of the query or the
    document were not read; and `relevant_span`, [start, end] in characters, if the score covers only that part.
    """

    def __init__(self, model: str | Path | Reranker = "mini", *, raw_scores: bool = False, **options: Any) -> None:
        """Load the model.

        Args:
            model: its name, as for `Reranker` of this package; or such a Reranker, which several of these may share.
            raw_scores: give logits instead of scores in 0..1.
            options: keyword arguments of Reranker, where the model is a name.

        Raises:
            RerankError: as `Reranker`; an unknown option is an InputError.
        """
        self.raw_scores = require_boolean("raw_scores", raw_scores)
        self._reranker = load(model, options)

    def score(self, query: str, doc: str) -> float:
        """Return the relevance of one document, in 0..1 unless raw.

        Args:
            query: what is asked.
            doc: the document's text.

        Raises:
            InputError: one of them is no text.
            NonFiniteScoreError: the model produced NaN or infinity.
        """
        return self._reranker.score(query, doc, raw_scores=self.raw_scores, show_progress=False)

    def rank(
        self,
        query: str,
        docs: str | Document | Iterable[str | Document],
        doc_ids: Iterable[str | int] | None = None,
        metadata: Iterable[dict[str, Any]] | None = None,
    ) -> RankedResults:
        """Rank documents by their relevance to a query.

        Args:
            query: what is asked.
            docs: texts or Documents, or one.
            doc_ids: one for each; if None, each Document's own, or its place if it has none.
            metadata: one for each; if None, a Document's own.

        Returns:
            Results with scores and ranks from 1 on, the best first, equal scores in the order given.

        Raises:
            InputError: a document has no text, the lengths differ, or the query is no text.
            NonFiniteScoreError: the model produced NaN or infinity.
        """
        documents = _documents(docs, doc_ids, metadata)
        texts = [str(document.text) for document in documents]
        ranking = self._reranker.rank(query, texts, raw_scores=self.raw_scores, show_progress=False)
        return _results(query, documents, ranking)

    async def rank_async(
        self,
        query: str,
        docs: str | Document | Iterable[str | Document],
        doc_ids: Iterable[str | int] | None = None,
        metadata: Iterable[dict[str, Any]] | None = None,
    ) -> RankedResults:
        """Rank documents as `rank` does, without holding up the event loop; cancelling it stops the work."""
        documents = _documents(docs, doc_ids, metadata)
        texts = [str(document.text) for document in documents]
        return _results(query, documents, await self._reranker.arank(query, texts, raw_scores=self.raw_scores))


def _documents(
    docs: str | Document | Iterable[str | Document],
    doc_ids: Iterable[str | int] | None,
    metadata: Iterable[dict[str, Any]] | None,
) -> list[Document]:
    """Return documents of our own, each with its id and metadata.

    Source: rerankers 0.10.0 utils.prep_docs, which changes the Documents that it is given, takes ids that are too many,
    and fails on an empty list and on metadata given beside Documents.
    """
    given = [docs] if isinstance(docs, (str, Document)) else docs
    require_sequence("docs", given)
    documents = [_document(document, i) for i, document in enumerate(given)]
    for argument, name, values in (("doc_ids", "doc_id", doc_ids), ("metadata", "metadata", metadata)):
        if values is not None:
            require_sequence(argument, values)
            values = list(values)
            if len(values) != len(documents):
                raise InputError(f"{argument} has {len(values)} values for {len(documents)} docs: give one for each")
            for document, value in zip(documents, values, strict=True):
                setattr(document, name, value)
    return documents


def _document(given: str | Document, place: int) -> Document:
    """Return a document of our own, with a text and an id."""
    text, doc_id = (given.text, given.doc_id) if isinstance(given, Document) else (given, None)
    if not isinstance(text, str):
        raise InputError(f"docs[{place}], id {doc_id!r}, has no text, but {text!r}: leave it out, or give it one")
    document = copy(given) if isinstance(given, Document) else Document(text)
    document.doc_id = place if doc_id is None else doc_id
    return document


def _results(query: str, documents: list[Document], ranking: list[RankedDocument]) -> RankedResults:
    """Return a ranking as rerankers has them."""
    results = []
    for place, result in enumerate(ranking):
        document = documents[result.index]
        document.metadata = without_reading(document.metadata) | reading(result)
        results.append(Result(document=document, score=result.score, rank=place + 1))
    return RankedResults(results=results, query=query, has_scores=True)
