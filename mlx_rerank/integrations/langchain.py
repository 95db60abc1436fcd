"""LangChain: a document compressor, and a cross-encoder for LangChain's own compressor."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_rerank.device.optional import framework
from mlx_rerank.errors import InputError
from mlx_rerank.integrations import load, reading, without_reading
from mlx_rerank.scoring.reranker import Reranker
from mlx_rerank.scoring.results import RankedDocument

with framework("LangChain", extra="langchain"):
    from langchain_core.callbacks import Callbacks
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.documents import BaseDocumentCompressor, Document
    from pydantic import BaseModel, ConfigDict, Field, PrivateAttr


class _Model(BaseModel):
    """The fields that say which model scores, and the model."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: str | Path | Reranker = Field(
        default="mini",
        frozen=True,
        description="A model's name, as for Reranker; or a Reranker, which several may share.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, frozen=True, description="Keyword arguments of Reranker, where the model is a name."
    )
    raw_scores: bool = Field(default=False, description="Give logits instead of scores in 0..1.")
    _reranker: Reranker = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        """Load the model.

        Args:
            fields: those of the class, by name.

        Raises:
            ValidationError: a field is unknown, of the wrong type or out of range.
            RerankError: as `Reranker`; an unknown option is an InputError.
        """
        super().__init__(**fields)
        self._reranker = load(self.model, self.options)  # here: pydantic would replace a validator's errors by its own


class MLXRerank(_Model, BaseDocumentCompressor):
    """A compressor that keeps the most relevant documents, for example in a ContextualCompressionRetriever.

    What it returns are copies. Their metadata has a `relevance_score`; `truncated_tokens`, if tokens of the query or
    the document were not read; and `relevant_span`, [start, end] in characters, if the score covers only that part.
    """

    top_n: int | None = Field(default=None, ge=1, description="How many documents to return; all if None.")

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return documents by their relevance to a query.

        Args:
            documents: what a retriever found.
            query: what is asked.
            callbacks: not called, since nothing runs inside that they could trace.

        Returns:
            The best first; equal scores in the order given.

        Raises:
            InputError: a document has no text, or the query is none.
            NonFiniteScoreError: the model produced NaN or infinity.
        """
        texts = _texts(documents)
        ranking = self._reranker.rank(query, texts, top_n=self.top_n, raw_scores=self.raw_scores, show_progress=False)
        return [_copy(documents[result.index], result) for result in ranking]

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return documents by their relevance to a query, without holding up the event loop.

        Cancelling it stops the work. Arguments, result and errors are those of `compress_documents`.
        """
        texts = _texts(documents)
        ranking = await self._reranker.arank(query, texts, top_n=self.top_n, raw_scores=self.raw_scores)
        return [_copy(documents[result.index], result) for result in ranking]


class MLXCrossEncoder(_Model, BaseCrossEncoder):
    """The model of LangChain's CrossEncoderReranker, and of whatever else takes a BaseCrossEncoder."""

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Return the relevance of each pair, in 0..1 unless raw.

        Args:
            text_pairs: (query, document) pairs.

        Raises:
            InputError: something is not a pair of texts.
            NonFiniteScoreError: the model produced NaN or infinity.
        """
        return self._reranker.score(text_pairs, raw_scores=self.raw_scores, show_progress=False).tolist()


def _texts(documents: Sequence[Document]) -> list[str]:
    """Return the documents' texts; every document must have one."""
    for i, document in enumerate(documents):
        if not isinstance(document.page_content, str):  # pydantic checks it only when a document is made
            raise InputError(
                f"documents[{i}], id {document.id!r}, has no text: page_content is {document.page_content!r}; "
                "leave it out, or give it one"
            )
    return [document.page_content for document in documents]


def _copy(document: Document, result: RankedDocument) -> Document:
    """Return a document with what is known of its relevance."""
    metadata = without_reading(document.metadata) | {"relevance_score": result.score} | reading(result)
    return document.model_copy(update={"metadata": metadata})
