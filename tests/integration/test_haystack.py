"""Haystack's own pipelines, retrievers and joiners, with this package's ranker in them."""

import asyncio
import math
import threading
import time
from copy import deepcopy
from typing import Any

import bounds
import pytest
from devices import slowed
from haystack import Document, Pipeline
from haystack.components.joiners import DocumentJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.core.errors import PipelineRuntimeError
from haystack.document_stores.in_memory import InMemoryDocumentStore

from mlx_rerank import Reranker
from mlx_rerank.errors import InputError
from mlx_rerank.integrations import haystack as adapter
from mlx_rerank.integrations.haystack import MLXRanker

pytestmark = pytest.mark.anyio
QUERY = "What do giant pandas eat?"
TEXTS = [
    "Paris has been the capital of France since the Middle Ages.",
    "The giant panda eats almost nothing but bamboo.",
    "",
    "A giant panda is a bear.",
    "The giant panda eats almost nothing but bamboo.",
]


@pytest.fixture
def documents() -> list[Document]:
    return [Document(id=f"id{i}", content=text, meta={"place": i, "tags": [i]}) for i, text in enumerate(TEXTS)]


@pytest.fixture
def ranker(mini: Reranker, monkeypatch: pytest.MonkeyPatch) -> MLXRanker:
    return sharing(mini, monkeypatch)


def sharing(reranker: Reranker, monkeypatch: pytest.MonkeyPatch, **how: Any) -> MLXRanker:
    """A ranker with a model that is loaded already."""
    ranker = MLXRanker(**how)
    monkeypatch.setattr(ranker, "_reranker", reranker)
    return ranker


def rows(answer: dict[str, list[Document]]) -> list[tuple[str, float | None]]:
    return [(document.id, document.score) for document in answer["documents"]]


def ranked(mini: Reranker, documents: list[Document], **how: Any) -> list[tuple[str, Any]]:
    """What Reranker.rank makes of documents."""
    ranking = mini.rank(QUERY, [document.content or "" for document in documents], **how)
    raw = how.get("raw_scores", False)
    return bounds.ranking([(documents[result.index].id, result.score) for result in ranking], raw=raw)


CASES = [
    ({}, {}),
    ({"top_k": 2}, {"top_n": 2}),
    ({"top_k": 99}, {"top_n": 99}),
    ({"scale_score": True}, {"raw_scores": False}),
    ({"scale_score": False}, {"raw_scores": True}),
]


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize(("own", "how"), CASES)
async def test_documents_come_in_the_order_of_rank_with_its_scores(mini, documents, ranker, own, how, monkeypatch):
    expected = ranked(mini, documents, **how)
    assert rows(ranker.run(QUERY, documents, **own)) == expected
    assert rows(await ranker.run_async(QUERY, documents, **own)) == expected
    built = sharing(mini, monkeypatch, **own)
    assert rows(built.run(query=QUERY, documents=documents)) == expected
    assert rows(await built.run_async(query=QUERY, documents=documents)) == expected


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_what_a_run_says_goes_before_what_was_said_at_construction(mini, documents, monkeypatch):
    ranker = sharing(mini, monkeypatch, top_k=1, scale_score=True, score_threshold=0.99)
    expected = ranked(mini, documents, top_n=2, raw_scores=True)
    assert rows(ranker.run(QUERY, documents, top_k=2, scale_score=False, score_threshold=-99)) == expected
    assert len(ranker.run(QUERY, documents, top_k=5, score_threshold=0.0)["documents"]) == 5


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize("scaled", [True, False])
async def test_a_threshold_keeps_what_reaches_it(mini, documents, ranker, scaled):
    expected = ranked(mini, documents, raw_scores=not scaled)
    threshold = expected[2][1].expected - 2 * bounds.COMPANY  # which no rounding of the third one's score reaches
    for answer in (
        ranker.run(QUERY, documents, scale_score=scaled, score_threshold=threshold),
        await ranker.run_async(QUERY, documents, scale_score=scaled, score_threshold=threshold),
    ):
        assert rows(answer) == expected[:3]
    assert rows(ranker.run(QUERY, documents, score_threshold=1.0)) == []
    for wrong in (math.nan, 50):
        with pytest.raises(InputError, match="threshold"):
            ranker.run(QUERY, documents, scale_score=True, score_threshold=wrong)
    with pytest.raises(InputError, match="scale_score must be True or False, not 0"):
        ranker.run(QUERY, documents, scale_score=0)


def test_copies_keep_everything_and_leave_the_originals_as_they_were(documents, ranker):
    documents[1] = Document(id="id1", content=TEXTS[1], meta=documents[1].meta, score=9.0, embedding=[0.5])
    before = deepcopy(documents)
    best = ranker.run(QUERY, documents)["documents"][0]
    assert documents == before
    assert (best.id, best.content, best.meta, best.embedding) == ("id1", TEXTS[1], {"place": 1, "tags": [1]}, [0.5])
    assert 0.5 < best.score < 1


def test_of_documents_with_one_id_the_one_its_retriever_scored_highest_is_ranked(ranker):
    given = [
        Document(id="a", content="none", meta={"by": "nobody"}),
        Document(id="a", content="low", meta={"by": "bm25"}, score=-2.0),
        Document(id="b", content="other"),
        Document(id="a", content="high", meta={"by": "vectors"}, score=0.0),
        Document(id="a", content="later", meta={"by": "another"}, score=0.0),
        Document(id="b", content="second"),
    ]
    found = ranker.run(QUERY, given)["documents"]
    assert sorted((document.id, document.content) for document in found) == [("a", "high"), ("b", "other")]


def test_equal_documents_keep_their_order(documents, ranker):
    found = ranker.run(QUERY, documents)["documents"]
    assert [document.id for document in found[:2]] == ["id1", "id4"]
    assert found[0].score == found[1].score


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_fields_of_the_meta_are_read_before_the_content(mini, monkeypatch):
    ranker = sharing(
        mini, monkeypatch, meta_fields_to_embed=["title", "year", "none", "missing"], embedding_separator=" - "
    )
    documents = [
        Document(content="It eats bamboo.", meta={"title": "Giant panda", "year": 0, "none": None}),
        Document(content="It eats bamboo."),
    ]
    expected = mini.rank(QUERY, ["Giant panda - 0 - It eats bamboo.", "It eats bamboo."])
    found = ranker.run(QUERY, documents)["documents"]
    assert [document.score for document in found] == [bounds.near(result.score) for result in expected]
    assert [document.meta for document in found] == [documents[result.index].meta for result in expected]
    assert found[0].content == "It eats bamboo."


async def test_no_documents_are_none_and_a_blank_query_is_a_query(documents, ranker):
    assert ranker.run(QUERY, []) == await ranker.run_async(QUERY, []) == {"documents": []}
    assert len(ranker.run(" ", documents)["documents"]) == len(TEXTS)


@pytest.fixture
def store(documents: list[Document]) -> InMemoryDocumentStore:
    store = InMemoryDocumentStore(bm25_algorithm="BM25Plus")
    store.write_documents(documents)
    return store


def pipeline(store: InMemoryDocumentStore, **how: Any) -> Pipeline:
    """Two retrievers that find the same, joined, and ranked."""
    made = Pipeline()
    made.add_component("one", InMemoryBM25Retriever(store, top_k=4))
    made.add_component("other", InMemoryBM25Retriever(store, top_k=3, scale_score=True))
    made.add_component("joiner", DocumentJoiner())
    made.add_component("ranker", MLXRanker(**how))
    made.connect("one", "joiner")
    made.connect("other", "joiner")
    made.connect("joiner.documents", "ranker.documents")
    return made


ASKED = {name: {"query": QUERY} for name in ("one", "other", "ranker")}


async def test_a_pipeline_ranks_before_and_after_it_was_saved(mini, store):
    made = pipeline(store, top_k=2, options={"max_length": 128, "device": "cpu"})
    found = made.run(ASKED, include_outputs_from={"joiner"})
    expected = ranked(mini, found["joiner"]["documents"], top_n=2)
    assert [identity for identity, _ in expected] == ["id1", "id4"]
    assert rows(found["ranker"]) == expected
    assert rows((await made.run_async(ASKED))["ranker"]) == expected

    loaded = Pipeline.loads(made.dumps(), allowed_modules=[MLXRanker.__module__])
    assert loaded.to_dict()["components"]["ranker"] == made.to_dict()["components"]["ranker"]
    for name in ("one", "other"):  # a store in memory is saved without what is in it
        vars(loaded.get_component(name))["document_store"] = store
    assert rows((await loaded.run_async(ASKED))["ranker"]) == expected
    assert rows(loaded.run({**ASKED, "ranker": {"query": QUERY, "top_k": 1}})["ranker"]) == expected[:1]


async def test_a_model_is_loaded_when_it_is_needed_and_once(mini, documents, monkeypatch):
    loads = []

    def load(*given):
        loads.append(given)
        time.sleep(0.05)  # for the others to come meanwhile
        return mini

    monkeypatch.setattr(adapter, "load", load)
    ranker = MLXRanker(options={"max_length": 64})
    assert loads == []
    threads = [threading.Thread(target=ranker.warm_up) for _ in range(3)]
    for thread in threads:
        thread.start()
    await asyncio.gather(ranker.warm_up_async(), *(ranker.run_async(QUERY, documents) for _ in range(3)))
    for thread in threads:
        thread.join()
    ranker.run(QUERY, documents)
    assert loads == [("mini", {"max_length": 64})]


async def test_loading_does_not_hold_up_the_event_loop(mini, documents, monkeypatch):
    finish = threading.Event()
    monkeypatch.setattr(adapter, "load", lambda *_: (finish.wait(10), mini)[1])
    for wait in (MLXRanker().warm_up_async(), MLXRanker().run_async(QUERY, documents)):
        finish.clear()
        call, start = asyncio.create_task(wait), time.monotonic()
        await asyncio.sleep(0.02)
        assert time.monotonic() - start < 1
        assert not call.done()
        finish.set()
        await call


async def test_a_task_that_is_cancelled_stops_its_work(tiny_reranker, monkeypatch):
    computed = slowed(tiny_reranker, monkeypatch)
    ranker = sharing(tiny_reranker, monkeypatch)
    call = asyncio.create_task(ranker.run_async("panda", [Document(content=f"bear {i}") for i in range(200)]))
    while not computed:
        await asyncio.sleep(0.001)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await ranker.run_async("panda", [Document(content="bear")])  # its turn comes after what is left of the other
    assert len(computed) < 20


@pytest.mark.parametrize("top_k", [0, -1, 1.5, True])
async def test_top_k_is_at_least_one(documents, ranker, top_k):
    told = f"top_k must be a whole number of at least 1, not {top_k}"
    with pytest.raises(InputError, match=told):
        MLXRanker(top_k=top_k)
    with pytest.raises(InputError, match=told):
        ranker.run(QUERY, documents, top_k=top_k)
    with pytest.raises(InputError, match=told):
        await ranker.run_async(QUERY, documents, top_k=top_k)


async def test_a_document_without_a_text_is_named(documents, ranker, store):
    documents[3] = Document(id="id3", meta={"title": "An image"})
    told = r"documents\[3\], id 'id3', has no text: content is None"
    with pytest.raises(InputError, match=told):
        ranker.run(QUERY, documents)
    with pytest.raises(InputError, match=told):
        await ranker.run_async(QUERY, documents)
    made = Pipeline()
    made.add_component("ranker", ranker)
    with pytest.raises(PipelineRuntimeError, match=told):
        made.run({"ranker": {"query": QUERY, "documents": documents}})
