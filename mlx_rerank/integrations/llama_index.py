"""LlamaIndex: a node postprocessor for query engines."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlx_rerank.device.optional import framework
from mlx_rerank.errors import InputError
from mlx_rerank.integrations import load, reading, without_reading
from mlx_rerank.scoring.reranker import Reranker
from mlx_rerank.scoring.results import RankedDocument

with framework("LlamaIndex", extra="llama-index"):
    from llama_index.core import instrumentation
    from llama_index.core.bridge.pydantic import BaseModel, ConfigDict, Field, PrivateAttr
    from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, Node, NodeWithScore, QueryBundle

dispatcher = instrumentation.get_dispatcher(__name__)  # pyright: ignore[reportPrivateImportUsage]


class MLXRerank(BaseNodePostprocessor):
    """A postprocessor that keeps the most relevant nodes, for example of a RetrieverQueryEngine.

    It reads the same text of a node as an embedding model: `node.get_content(metadata_mode=MetadataMode.EMBED)`. What
    it returns are copies. Their metadata has `truncated_tokens`, if tokens of the query or the node were not read; and
    `relevant_span`, [start, end] in characters of what it reads, if the score covers only that part. Embedding models
    and LLMs are not shown these.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: str | Reranker = Field(
        default="mini",
        frozen=True,
        description="A model's name, as for Reranker; or a Reranker, which several may share.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        frozen=True,
        description="Keyword arguments of Reranker, where the model is a name; plain values where it is to be saved.",
    )
    top_n: int | None = Field(default=None, ge=1, description="How many nodes to return; all if None.")
    raw_scores: bool = Field(default=False, description="Give logits instead of scores in 0..1.")
    keep_retrieval_score: bool = Field(
        default=False, description="Keep the retriever's score in the metadata, as retrieval_score."
    )
    _reranker: Reranker = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        """Load the model.

        Args:
            fields: those of the class, by name; the model may be a Path as well.

        Raises:
            ValidationError: a field is unknown, of the wrong type or out of range.
            RerankError: as `Reranker`; an unknown option is an InputError.
        """
        if isinstance(fields.get("model"), Path):
            fields["model"] = str(fields["model"])  # so that it can be saved
        super().__init__(**fields)
        self._reranker = load(self.model, self.options)  # here: pydantic would replace a validator's errors by its own

    @classmethod
    def class_name(cls) -> str:
        """Return the name that the class has in what is saved."""
        return "MLXRerank"

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return a dict from which `from_dict` makes an equal postprocessor.

        Raises:
            InputError: it was given a Reranker, whose name is not known.
        """
        if isinstance(self.model, Reranker):
            raise InputError("a Reranker cannot be saved: construct MLXRerank with the model's name instead")
        return super().to_dict(**kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the callbacks behind where it travels to another process, as `to_dict` does."""
        state = BaseModel.__getstate__(self)
        fields = {name: value for name, value in state["__dict__"].items() if name != "callback_manager"}
        return state | {"__dict__": fields}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the model that travelled; LlamaIndex's own method would load whatever its name leads to now."""
        BaseModel.__setstate__(self, state)
        self.callback_manager = CallbackManager()

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        """Return nodes by their relevance to a query; `postprocess_nodes` leads here."""
        with self._events(nodes, query_bundle) as (query, found):
            texts = _texts(nodes)
            ranking = self._reranker.rank(
                query, texts, top_n=self.top_n, raw_scores=self.raw_scores, show_progress=False
            )
            found += [self._copy(nodes[result.index], result) for result in ranking]
        return found

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        """Return nodes by their relevance, without holding up the event loop; cancelling it stops the work."""
        with self._events(nodes, query_bundle) as (query, found):
            texts = _texts(nodes)
            ranking = await self._reranker.arank(query, texts, top_n=self.top_n, raw_scores=self.raw_scores)
            found += [self._copy(nodes[result.index], result) for result in ranking]
        return found

    @contextmanager
    def _events(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None
    ) -> Iterator[tuple[str, list[NodeWithScore]]]:
        """Yield the query, and a list for the nodes found; tell observers of the start, and of the list at the end."""
        if query_bundle is None:
            raise InputError("nodes are ranked for a query, and there is none: give query_str or query_bundle")
        name = self.model if isinstance(self.model, str) else type(self.model).__name__
        query, found = query_bundle.query_str, []
        top_n = len(nodes) if self.top_n is None else self.top_n
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top_n,
        }
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=name))
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield query, found
            event.on_end(payload={EventPayload.NODES: found})
        dispatcher.event(ReRankEndEvent(nodes=found))

    def _copy(self, given: NodeWithScore, result: RankedDocument) -> NodeWithScore:
        """Return a node with what is known of its relevance, without changing what models read of it."""
        told = ({"retrieval_score": given.score} if self.keep_retrieval_score else {}) | reading(result)
        node = given.node
        changes = {
            "metadata": without_reading(node.metadata) | told,
            "excluded_embed_metadata_keys": list(dict.fromkeys([*node.excluded_embed_metadata_keys, *told])),
            "excluded_llm_metadata_keys": list(dict.fromkeys([*node.excluded_llm_metadata_keys, *told])),
        }
        return given.model_copy(update={"node": node.model_copy(update=changes), "score": result.score})


def _texts(nodes: Sequence[NodeWithScore]) -> list[str]:
    """Return what is read of nodes; every node must have a text."""
    for i, given in enumerate(nodes):
        node = given.node
        # A node of several media may have no text; its content is empty then.
        if isinstance(node, Node) and (node.text_resource is None or node.text_resource.text is None):
            raise InputError(f"nodes[{i}], id {node.node_id!r}, has no text: leave it out, or give it one")
    return [given.node.get_content(metadata_mode=MetadataMode.EMBED) for given in nodes]
