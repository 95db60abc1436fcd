"""LlamaIndex's own query engines, retrievers and observers, with this package's postprocessor in them."""

import asyncio
from typing import Any

import bounds
import pytest
from devices import slowed
from llama_index.core import MockEmbedding, VectorStoreIndex, get_response_synthesizer, instrumentation
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from pydantic import Field

from mlx_rerank import Reranker
from mlx_rerank.integrations.llama_index import MLXRerank

pytestmark = pytest.mark.anyio
QUERY = "What do giant pandas eat?"
TEXTS = [
    "Paris has been the capital of France since the Middle Ages.",
    "The giant panda eats almost nothing but bamboo.",
    "",
    "A panda is a bear.",
    "The giant panda eats almost nothing but bamboo.",
]


@pytest.fixture
def nodes() -> list[NodeWithScore]:
    """Nodes with a source that is embedded, and a place that is not."""
    return [
        NodeWithScore(
            node=TextNode(
                id_=f"id{i}",
                text=text,
                metadata={"source": "zoo", "place": i},
                excluded_embed_metadata_keys=["place"],
            ),
            score=0.5 - i / 10,
        )
        for i, text in enumerate(TEXTS)
    ]


class Fixed(BaseRetriever):
    """A retriever that finds the same nodes for all questions."""

    def __init__(self, nodes: list[NodeWithScore]) -> None:
        super().__init__()
        self.nodes = nodes

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self.nodes


class Seen(BaseEventHandler):
    """Keeps events of rerankers."""

    events: list[Any] = Field(default_factory=list)

    def handle(self, event: Any, **_: Any) -> None:
        if isinstance(event, (ReRankStartEvent, ReRankEndEvent)):
            self.events.append(event)


@pytest.fixture
def seen(monkeypatch):
    handler, root = Seen(), instrumentation.root_dispatcher  # pyright: ignore[reportPrivateImportUsage]
    monkeypatch.setattr(root, "event_handlers", [*root.event_handlers, handler])
    return handler.events


def rows(nodes: list[NodeWithScore]) -> list[tuple[str, float | None]]:
    return [(found.node.node_id, found.score) for found in nodes]


def ranked(mini: Reranker, nodes: list[NodeWithScore], **how: Any) -> list[tuple[str, Any]]:
    """What Reranker.rank makes of what would be embedded of nodes."""
    ranking = mini.rank(QUERY, [found.get_content(MetadataMode.EMBED) for found in nodes], **how)
    raw = how.get("raw_scores", False)
    return bounds.ranking([(nodes[result.index].node.node_id, result.score) for result in ranking], raw=raw)


@pytest.mark.numeric
@pytest.mark.parametrize("how", [{}, {"top_n": 2}, {"top_n": 99}, {"raw_scores": True}])
async def test_nodes_come_in_the_order_of_rank_with_its_scores(mini, nodes, how):
    postprocessor = MLXRerank(model=mini, **how)
    assert rows(postprocessor.postprocess_nodes(nodes, query_str=QUERY)) == ranked(mini, nodes, **how)
    assert rows(await postprocessor.apostprocess_nodes(nodes, QueryBundle(QUERY))) == ranked(mini, nodes, **how)


def test_the_two_best_are_equal_and_keep_their_order(mini, nodes):
    found = MLXRerank(model=mini, top_n=2).postprocess_nodes(nodes, query_str=QUERY)
    assert [each.node.node_id for each in found] == ["id1", "id4"]
    assert 0.5 < found[0].get_score() == found[1].get_score() < 1


@pytest.mark.numeric
def test_what_is_embedded_of_a_node_is_read(mini):
    told = TextNode(text="They eat it.", metadata={"animal": "giant pandas", "food": "bamboo"})
    untold = told.model_copy(update={"excluded_embed_metadata_keys": ["animal", "food"]})
    found = MLXRerank(model=mini).postprocess_nodes([NodeWithScore(node=n) for n in (untold, told)], query_str=QUERY)
    assert found[0].node.excluded_embed_metadata_keys == []
    assert [each.score for each in found] == [
        bounds.near(mini.score(QUERY, text))
        for text in ("animal: giant pandas\nfood: bamboo\n\nThey eat it.", "They eat it.")
    ]


def test_copies_keep_everything_and_leave_the_originals_as_they_were(mini, nodes):
    class Chunk(TextNode):
        heading: str = "Food"

    class Hit(NodeWithScore):
        by: str = "bm25"

    nodes[1] = Hit(node=Chunk(text=TEXTS[1], id_="id1", extra_info={"place": 1}), score=0.4)
    before = [found.model_copy(deep=True) for found in nodes]
    best = MLXRerank(model=mini, keep_retrieval_score=True).postprocess_nodes(nodes, query_str=QUERY)[0]
    assert nodes == before
    assert [found.score for found in nodes] == [found.score for found in before]
    assert isinstance(best, Hit)
    assert isinstance(best.node, Chunk)
    assert (best.by, best.node.node_id, best.node.heading, best.node.text) == ("bm25", "id1", "Food", TEXTS[1])
    assert best.node.metadata == {"place": 1, "retrieval_score": 0.4}
    assert best.score != 0.4


@pytest.mark.numeric
def test_what_is_told_changes_nothing_of_what_models_read(mini, nodes):
    postprocessor = MLXRerank(model=mini, keep_retrieval_score=True)
    once = postprocessor.postprocess_nodes(nodes, query_str=QUERY)
    for found in once:
        given = next(each for each in nodes if each.node.node_id == found.node.node_id)
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert found.get_content(mode) == given.get_content(mode)
        assert found.metadata["retrieval_score"] == given.score
    twice = postprocessor.postprocess_nodes(once, query_str=QUERY)
    assert rows(twice) == bounds.ranking(rows(once))
    assert twice[0].node.excluded_llm_metadata_keys == ["retrieval_score"]


def test_what_was_not_read_is_told_and_what_an_earlier_reranker_told_is_not():
    text = "bamboo " * 100 + "\n\n" + "The giant panda eats bamboo. " * 3 + "\n\n" + "Paris " * 100
    given = NodeWithScore(node=TextNode(text=text, metadata={"kept": 1}))
    read = given.get_content(MetadataMode.EMBED)
    (cut,) = MLXRerank(options={"max_length": 40}).postprocess_nodes([given], query_str=QUERY)
    assert cut.metadata["truncated_tokens"] > 100
    assert cut.metadata["relevant_span"][0] == 0
    assert 0 < cut.metadata["relevant_span"][1] < 700
    assert cut.get_content(MetadataMode.EMBED) == read
    options = {"max_length": 64, "long_documents": "windows"}
    (windows,) = MLXRerank(options=options).postprocess_nodes([cut], query_str=QUERY)
    start, end = windows.metadata["relevant_span"]
    assert read[start:end].strip().startswith("The giant panda")
    assert "truncated_tokens" not in windows.metadata
    (whole,) = MLXRerank().postprocess_nodes([windows], query_str=QUERY)
    assert whole.metadata == {"kept": 1}


@pytest.fixture
def engine(mini, nodes):
    """A query engine, whose language model answers with its own prompt."""
    synthesizer = get_response_synthesizer(llm=MockLLM())
    return RetrieverQueryEngine(Fixed(nodes), synthesizer, node_postprocessors=[MLXRerank(model=mini, top_n=3)])


@pytest.mark.numeric
async def test_a_query_engine_answers_from_the_best_nodes(mini, nodes, engine):
    for response in (engine.query(QUERY), await engine.aquery(QUERY)):
        assert rows(response.source_nodes) == ranked(mini, nodes, top_n=3)
        shown = [str(response).find(text) for text in (TEXTS[1], TEXTS[3])]
        assert 0 < shown[0] < shown[1]
        assert TEXTS[0] not in str(response)
    assert rows(await engine.aretrieve(QueryBundle(QUERY))) == ranked(mini, nodes, top_n=3)


def test_an_index_takes_it(mini, nodes):
    index = VectorStoreIndex([found.node for found in nodes if found.text], embed_model=MockEmbedding(embed_dim=4))
    engine = index.as_query_engine(
        llm=MockLLM(), similarity_top_k=9, node_postprocessors=[MLXRerank(model=mini, top_n=1)]
    )
    (source,) = engine.query(QUERY).source_nodes  # pyright: ignore[reportAttributeAccessIssue]
    assert source.text == TEXTS[1]


@pytest.mark.parametrize("top_n", [None, 2])
async def test_a_start_and_an_end_are_told_to_event_handlers(nodes, seen, top_n):
    postprocessor = MLXRerank(model="mini", top_n=top_n)
    for awaited in (False, True):
        seen.clear()
        query = QueryBundle(QUERY)
        call = postprocessor.apostprocess_nodes(nodes, query) if awaited else None
        found = await call if call else postprocessor.postprocess_nodes(nodes, query)
        start, end = seen
        assert isinstance(start, ReRankStartEvent)
        assert (start.query, start.nodes, start.top_n, start.model_name) == (query, nodes, top_n or 5, "mini")
        assert isinstance(end, ReRankEndEvent)
        assert end.nodes == found


async def test_spans_and_callbacks_follow_it(mini, nodes, monkeypatch):
    spans, debug = SimpleSpanHandler(), LlamaDebugHandler(print_trace_on_end=False)
    root = instrumentation.root_dispatcher  # pyright: ignore[reportPrivateImportUsage]
    monkeypatch.setattr(root, "span_handlers", [spans])
    postprocessor = MLXRerank(model=mini, top_n=2, callback_manager=CallbackManager([debug]))
    found = postprocessor.postprocess_nodes(nodes, query_str=QUERY)
    await postprocessor.apostprocess_nodes(nodes, query_str=QUERY)
    names = [span.id_.split("-")[0] for span in spans.completed_spans]
    assert names == ["MLXRerank._postprocess_nodes", "MLXRerank._apostprocess_nodes"]
    start, end = debug.get_event_pairs(CBEventType.RERANKING)[0]
    assert start.payload == {
        EventPayload.NODES: nodes,
        EventPayload.MODEL_NAME: "Reranker",
        EventPayload.QUERY_STR: QUERY,
        EventPayload.TOP_K: 2,
    }
    assert end.payload == {EventPayload.NODES: found}
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 2


async def test_the_event_loop_goes_on_and_a_task_that_is_cancelled_stops_its_work(tiny_reranker, monkeypatch):
    computed = slowed(tiny_reranker, monkeypatch)
    postprocessor = MLXRerank(model=tiny_reranker)
    many = [NodeWithScore(node=TextNode(text=f"bear {i}")) for i in range(200)]
    call = asyncio.create_task(postprocessor.apostprocess_nodes(many, query_str="panda"))
    while not computed:
        await asyncio.sleep(0.001)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await postprocessor.apostprocess_nodes(many[:1], query_str="panda")  # comes after what is left of the other
    assert len(computed) < 20


async def test_no_nodes_are_none_and_a_blank_query_is_a_query(mini, nodes, seen):
    assert MLXRerank(model=mini).postprocess_nodes([], query_str=QUERY) == []
    assert await MLXRerank(model=mini).apostprocess_nodes([], query_str=QUERY) == []
    assert [type(event) for event in seen] == [ReRankStartEvent, ReRankEndEvent] * 2
    assert len(MLXRerank(model=mini).postprocess_nodes(nodes, query_str=" ")) == len(TEXTS)
