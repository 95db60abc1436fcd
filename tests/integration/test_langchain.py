"""LangChain's own retrievers, chains and reranker, with this package's adapters in them."""

import asyncio
from copy import deepcopy
from pathlib import Path
from typing import Any

import bounds
import pytest
from devices import slowed
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker, DocumentCompressorPipeline
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from mlx_rerank import Reranker
from mlx_rerank.errors import CheckpointNotFoundError, InputError
from mlx_rerank.integrations.langchain import MLXCrossEncoder, MLXRerank

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
def documents() -> list[Document]:
    return [Document(text, id=f"id{i}", metadata={"place": i, "tags": [i]}) for i, text in enumerate(TEXTS)]


@pytest.fixture
def retriever(documents: list[Document]) -> BaseRetriever:
    """A retriever that finds them all, in an order that means nothing."""
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_documents(documents)
    return store.as_retriever(search_kwargs={"k": 9})


def rows(documents: Any) -> list[tuple[str, float]]:
    return [(document.id, document.metadata["relevance_score"]) for document in documents]


def ranked(mini: Reranker, documents: list[Document], **how: Any) -> list[tuple[str | None, Any]]:
    """What Reranker.rank makes of documents."""
    ranking = mini.rank(QUERY, [document.page_content for document in documents], **how)
    raw = how.get("raw_scores", False)
    return bounds.ranking([(documents[result.index].id, result.score) for result in ranking], raw=raw)


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize("how", [{}, {"top_n": 2}, {"top_n": 99}, {"raw_scores": True}])
def test_documents_come_in_the_order_of_rank_with_its_scores(mini, documents, how):
    assert rows(MLXRerank(model=mini, **how).compress_documents(documents, QUERY)) == ranked(mini, documents, **how)


def test_the_two_best_are_equal_and_keep_their_order(mini, documents):
    found = MLXRerank(model=mini, top_n=2).compress_documents(documents, QUERY)
    assert [document.id for document in found] == ["id1", "id4"]
    assert 0.5 < found[0].metadata["relevance_score"] == found[1].metadata["relevance_score"] < 1


def test_copies_keep_everything_and_leave_the_originals_as_they_were(mini, documents):
    class Chunk(Document):
        heading: str = "Food"

    documents[1] = Chunk(page_content=TEXTS[1], id="id1", metadata=documents[1].metadata)
    before = deepcopy(documents)
    best = MLXRerank(model=mini).compress_documents(documents, QUERY)[0]
    assert documents == before
    assert isinstance(best, Chunk)
    assert (best.id, best.heading, best.page_content) == ("id1", "Food", TEXTS[1])
    assert best.metadata == {"place": 1, "tags": [1], "relevance_score": best.metadata["relevance_score"]}


@pytest.mark.one_kernel
@pytest.mark.numeric
async def test_awaited_and_not_the_same_comes_out(mini, documents):
    compressor = MLXRerank(model=mini, top_n=3, raw_scores=True)
    found = compressor.compress_documents(documents, QUERY), await compressor.acompress_documents(documents, QUERY)
    expected = ranked(mini, documents, top_n=3, raw_scores=True)
    for each in found:
        assert rows(each) == expected
        places = [one.metadata["place"] for one in each]
        assert [(one.page_content, one.metadata["tags"]) for one in each] == [(TEXTS[i], [i]) for i in places]


async def test_the_event_loop_goes_on_and_a_task_that_is_cancelled_stops_its_work(tiny_reranker, monkeypatch):
    computed = slowed(tiny_reranker, monkeypatch)
    compressor = MLXRerank(model=tiny_reranker)
    call = asyncio.create_task(compressor.acompress_documents([Document(f"bear {i}") for i in range(200)], "panda"))
    while not computed:
        await asyncio.sleep(0.001)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await compressor.acompress_documents([Document("bear")], "panda")  # its turn comes after what is left of the other
    assert len(computed) < 20


@pytest.mark.one_kernel
@pytest.mark.numeric
async def test_a_contextual_compression_retriever_finds_them(mini, documents, retriever):
    chain = ContextualCompressionRetriever(base_compressor=MLXRerank(model=mini, top_n=3), base_retriever=retriever)
    retrieved = retriever.invoke(QUERY)
    assert len(retrieved) == len(TEXTS)
    assert rows(chain.invoke(QUERY)) == ranked(mini, retrieved, top_n=3)
    assert rows(await chain.ainvoke(QUERY)) == ranked(mini, retrieved, top_n=3)
    assert all("relevance_score" not in document.metadata for document in [*retriever.invoke(QUERY), *documents])


async def test_it_works_in_a_chain_and_in_a_pipeline_of_compressors(mini, retriever):
    compressor = DocumentCompressorPipeline(transformers=list[Any](MLXRerank(model=mini, top_n=n) for n in (3, 1)))
    best = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=retriever)
    prompt = ChatPromptTemplate.from_template("{context} | {question}")
    context = best | (lambda documents: "/".join(document.page_content for document in documents))
    chain = {"context": context, "question": RunnablePassthrough()} | prompt
    expected = f"Human: {TEXTS[1]} | {QUERY}"
    for prompted in (chain.invoke(QUERY), await chain.ainvoke(QUERY), *chain.batch([QUERY])):
        assert prompted.to_string() == expected


async def test_callbacks_are_accepted(mini, documents):
    for callbacks in (None, [BaseCallbackHandler()], CallbackManager([])):
        assert len(MLXRerank(model=mini).compress_documents(documents, QUERY, callbacks=callbacks)) == len(TEXTS)
        assert len(await MLXRerank(model=mini).acompress_documents(documents, QUERY, callbacks)) == len(TEXTS)


async def test_no_documents_are_none_and_a_blank_query_is_a_query(mini, documents):
    assert MLXRerank(model=mini).compress_documents([], QUERY) == []
    assert await MLXRerank(model=mini).acompress_documents([], QUERY) == []
    assert len(MLXRerank(model=mini).compress_documents(documents, " ")) == len(TEXTS)


def test_what_was_not_read_is_told_and_what_an_earlier_reranker_told_is_not():
    text = "bamboo " * 100 + "\n\n" + "The giant panda eats bamboo. " * 3 + "\n\n" + "Paris " * 100
    document = Document(text, metadata={"kept": 1})
    (cut,) = MLXRerank(options={"max_length": 40}).compress_documents([document], QUERY)
    (end,) = cut.metadata["relevant_span"][1:]
    assert cut.metadata["truncated_tokens"] > 100
    assert cut.metadata["relevant_span"] == [0, end]
    assert 0 < end < 700
    (windows,) = MLXRerank(options={"max_length": 64, "long_documents": "windows"}).compress_documents([cut], QUERY)
    start, end = windows.metadata["relevant_span"]
    assert text[start:end].strip().startswith("The giant panda")
    assert "truncated_tokens" not in windows.metadata
    (whole,) = MLXRerank().compress_documents([windows], QUERY)
    assert sorted(whole.metadata) == ["kept", "relevance_score"]


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize("raw", [False, True])
def test_a_cross_encoder_scores_pairs(mini, raw):
    pairs = [(QUERY, text) for text in TEXTS]
    scores = MLXCrossEncoder(model=mini, raw_scores=raw).score(pairs)
    assert all(type(score) is float for score in scores)
    assert scores == [bounds.near(score, raw=raw) for score in mini.score(pairs, raw_scores=raw).tolist()]
    assert MLXCrossEncoder(model=mini).score([]) == []


async def test_langchains_own_reranker_takes_the_cross_encoder(mini, retriever):
    reranker = CrossEncoderReranker(model=MLXCrossEncoder(model=mini), top_n=2)
    chain = ContextualCompressionRetriever(base_compressor=reranker, base_retriever=retriever)
    expected = [identity for identity, _ in ranked(mini, retriever.invoke(QUERY), top_n=2)]
    assert [document.id for document in chain.invoke(QUERY)] == expected
    assert [document.id for document in await chain.ainvoke(QUERY)] == expected


@pytest.mark.parametrize("adapter", [MLXRerank, MLXCrossEncoder])
def test_what_is_wrong_is_told_at_once(adapter, mini):
    with pytest.raises(InputError, match="dtypes: no option of Reranker, which has dtype, "):
        adapter(model="mini", options={"dtypes": "float32"})
    with pytest.raises(InputError, match="loaded already"):
        adapter(model=mini, options={"dtype": "float32"})
    with pytest.raises(CheckpointNotFoundError, match="nowhere"):
        adapter(model="nowhere")
    with pytest.raises(CheckpointNotFoundError, match="nowhere"):
        adapter(model=Path("nowhere"))
    with pytest.raises(ValidationError, match=r"top_k\n  Extra inputs"):
        adapter(top_k=3)
    with pytest.raises(ValidationError, match="Field is frozen"):
        adapter(model=mini).model = "mini"


def test_top_n_is_at_least_one(mini):
    with pytest.raises(ValidationError, match=r"top_n\n.*greater than or equal to 1.*input_value=0"):
        MLXRerank(model=mini, top_n=0)


async def test_a_document_without_a_text_is_named(mini, documents):
    documents[3].page_content = None
    told = r"documents\[3\], id 'id3', has no text: page_content is None"
    with pytest.raises(InputError, match=told):
        MLXRerank(model=mini).compress_documents(documents, QUERY)
    with pytest.raises(InputError, match=told):
        await MLXRerank(model=mini).acompress_documents(documents, QUERY)
    with pytest.raises(InputError, match=r"pairs\[0\]"):
        MLXCrossEncoder(model=mini).score([(QUERY, None)])  # pyright: ignore[reportArgumentType]


def test_a_model_is_loaded_with_its_options_and_shown_by_name():
    compressor = MLXRerank(model="mini", options={"dtype": "bfloat16", "max_length": 64}, top_n=2)
    assert repr(compressor) == (
        "MLXRerank(model='mini', options={'dtype': 'bfloat16', 'max_length': 64}, raw_scores=False, top_n=2)"
    )
    assert (compressor._reranker.dtype, compressor._reranker.max_length) == ("bfloat16", 64)


def test_every_field_has_a_description():
    for adapter in (MLXRerank, MLXCrossEncoder):
        assert all(field.description for field in adapter.model_fields.values())
