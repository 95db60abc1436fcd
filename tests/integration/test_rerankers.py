"""AnswerDotAI's rerankers: what their own code does with this package's ranker and its results."""

import asyncio
from copy import deepcopy
from typing import Any, cast

import bounds
import pytest
from devices import slowed
from rerankers import Document
from rerankers.models.ranker import BaseRanker
from rerankers.results import RankedResults

from mlx_rerank import Reranker
from mlx_rerank.errors import CheckpointNotFoundError, InputError
from mlx_rerank.integrations.rerankers import MLXRanker

pytestmark = pytest.mark.anyio
QUERY = "What do giant pandas eat?"
TEXTS = [
    "Paris has been the capital of France since the Middle Ages.",
    "The giant panda eats almost nothing but bamboo.",
    "",
    "A panda is a bear.",
    "The giant panda eats almost nothing but bamboo.",
]
IDS = ["a", "b", "c", "d", "e"]


@pytest.fixture
def documents() -> list[Document]:
    return [Document(text, doc_id=IDS[i], metadata={"place": i}) for i, text in enumerate(TEXTS)]


def rows(results: RankedResults) -> list[tuple[Any, float | None]]:
    return [(result.document.doc_id, result.score) for result in results]


def ranked(mini: Reranker, ids: Any, **how: Any) -> list[tuple[Any, Any]]:
    """What Reranker.rank makes of the texts."""
    rows = [(ids[result.index], result.score) for result in mini.rank(QUERY, TEXTS, **how)]
    return bounds.ranking(rows, raw=how.get("raw_scores", False))


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize("raw", [False, True])
async def test_texts_come_in_the_order_of_rank_with_its_scores(mini, raw):
    ranker = MLXRanker(mini, raw_scores=raw)
    expected = ranked(mini, range(5), raw_scores=raw)
    assert isinstance(ranker, BaseRanker)
    for results in (ranker.rank(QUERY, TEXTS), await ranker.rank_async(QUERY, TEXTS), ranker.rank(QUERY, tuple(TEXTS))):
        assert isinstance(results, RankedResults)
        assert rows(results) == expected
        assert [result.rank for result in results] == [1, 2, 3, 4, 5]
        assert (results.query, results.has_scores, results.results_count()) == (QUERY, True, 5)
        assert results[0].text == results[1].text == TEXTS[1]


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize("ids", [IDS, [40, 30, 20, 10, 0]])
async def test_results_are_found_by_their_ids(mini, ids):
    alone = dict(ranked(mini, ids))
    for results in (MLXRanker(mini).rank(QUERY, TEXTS, ids), await MLXRanker(mini).rank_async(QUERY, TEXTS, ids)):
        for place, identity in enumerate(ids):
            assert results.get_score_by_docid(identity) == alone[identity]
            found = results.get_result_by_docid(identity)
            assert found is not None
            assert found.text == TEXTS[place]
        assert results.get_score_by_docid("missing") is None
        assert [result.doc_id for result in results.top_k(2)] == [ids[1], ids[4]]  # equal ones, in the order given
        assert results.top_k(99) == results.results


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_documents_keep_everything_and_stay_as_they_were(mini, documents):
    class Chunk(Document):
        heading = "Food"

    documents[1] = Chunk(TEXTS[1], doc_id="b", metadata={"place": 1})
    before = deepcopy([vars(document) for document in documents])
    results = MLXRanker(mini).rank(QUERY, documents)
    assert [vars(document) for document in documents] == before
    assert rows(results) == ranked(mini, IDS)
    assert isinstance(results[0].document, Chunk)
    assert results[0].document.metadata == {"place": 1}
    assert results[0].place == 1  # Result looks into the metadata
    results[0].document.metadata["place"] = 2
    assert documents[1].metadata == {"place": 1}


async def test_ids_and_metadata_that_are_given_take_the_place_of_the_documents_own(mini, documents):
    before = deepcopy([vars(document) for document in documents])
    metadata = [{"page": i} for i in range(5)]
    arguments = {"doc_ids": range(5), "metadata": iter(metadata)}
    results = MLXRanker(mini).rank(QUERY, documents, **arguments)
    assert rows(results) == ranked(mini, range(5))
    assert results[0].document.metadata == {"page": 1}
    results = await MLXRanker(mini).rank_async(QUERY, TEXTS, metadata=metadata)
    assert results[0].document.metadata == {"page": 1}
    results[0].document.metadata["page"] = 2
    assert metadata[1] == {"page": 1}
    assert [vars(document) for document in documents] == before


def test_texts_and_documents_may_be_mixed_and_ids_left_out(mini):
    given = [Document(TEXTS[0]), TEXTS[1], Document(TEXTS[3], doc_id=0)]
    assert [result.doc_id for result in MLXRanker(mini).rank(QUERY, given)] == [1, 0, 0]
    assert given[0].doc_id is None  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize("one", [TEXTS[1], Document(TEXTS[1], doc_id=0)])
def test_one_document_needs_no_list(mini, one):
    assert rows(MLXRanker(mini).rank(QUERY, one)) == [(0, bounds.near(mini.score(QUERY, TEXTS[1])))]


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize("raw", [False, True])
def test_a_pair_has_a_score(mini, raw):
    score = MLXRanker(mini, raw_scores=raw).score(QUERY, TEXTS[1])
    assert type(score) is float
    assert score == bounds.near(mini.score(QUERY, TEXTS[1], raw_scores=raw), raw=raw)


async def test_no_documents_are_none_and_a_blank_query_is_a_query(mini):
    for ids in (None, []):
        results = MLXRanker(mini).rank(QUERY, [], ids)
        assert (results.results, results.top_k(3), results.query) == ([], [], QUERY)
    assert (await MLXRanker(mini).rank_async(QUERY, [])).results == []
    assert MLXRanker(mini).rank(" ", TEXTS).results_count() == 5


async def test_the_event_loop_goes_on_and_a_task_that_is_cancelled_stops_its_work(tiny_reranker, monkeypatch):
    computed = slowed(tiny_reranker, monkeypatch)
    ranker = MLXRanker(tiny_reranker)
    call = asyncio.create_task(ranker.rank_async("panda", [f"bear {i}" for i in range(200)]))
    while not computed:
        await asyncio.sleep(0.001)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await ranker.rank_async("panda", ["bear"])  # its turn comes after what is left of the other
    assert len(computed) < 20


def test_what_was_not_read_is_told_and_what_an_earlier_reranker_told_is_not():
    text = "bamboo " * 100 + "\n\n" + "The giant panda eats bamboo. " * 3 + "\n\n" + "Paris " * 100
    cut = MLXRanker(max_length=40).rank(QUERY, text, metadata=[{"kept": 1}])[0].document
    (start, end), unread = cut.metadata["relevant_span"], cut.metadata["truncated_tokens"]
    assert (start, unread > 100) == (0, True)
    assert 0 < end < 700
    windows = MLXRanker(max_length=64, long_documents="windows").rank(QUERY, cut)[0].document
    start, end = windows.metadata["relevant_span"]
    assert text[start:end].strip().startswith("The giant panda")
    assert "truncated_tokens" not in windows.metadata
    assert MLXRanker().rank(QUERY, windows)[0].document.metadata == {"kept": 1}
    assert cut.metadata["truncated_tokens"] == unread


@pytest.mark.parametrize("name", ["doc_ids", "metadata"])
async def test_lengths_that_differ_are_refused(mini, name):
    told = f"{name} has 2 values for 5 docs: give one for each"
    values: list[Any] = [{}, {}] if name == "metadata" else ["a", "b"]
    with pytest.raises(InputError, match=told):
        MLXRanker(mini).rank(QUERY, TEXTS, **{name: values})
    with pytest.raises(InputError, match=told):
        await MLXRanker(mini).rank_async(QUERY, TEXTS, **{name: values})
    with pytest.raises(InputError, match=f"{name} must be a list, not a str"):
        MLXRanker(mini).rank(QUERY, TEXTS, **{name: cast(Any, "abcde")})


async def test_a_document_without_a_text_is_named(mini, documents):
    picture = Document(document_type="image", image_path="panda.png", doc_id="p")
    with pytest.raises(InputError, match=r"docs\[5\], id 'p', has no text, but None"):
        MLXRanker(mini).rank(QUERY, [*documents, picture])
    with pytest.raises(InputError, match=r"docs\[1\], id None, has no text, but 3"):
        await MLXRanker(mini).rank_async(QUERY, ["bear", 3])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="docs must be a list, not a dict"):
        MLXRanker(mini).rank(QUERY, {"text": "bear"})
    with pytest.raises(InputError, match="query must be a text, not NoneType"):
        MLXRanker(mini).rank(None, TEXTS)  # pyright: ignore[reportArgumentType]


def test_what_is_wrong_is_told_at_once(mini):
    with pytest.raises(InputError, match="dtypes: no option of Reranker, which has dtype, "):
        MLXRanker(dtypes="float32")
    with pytest.raises(InputError, match="loaded already"):
        MLXRanker(mini, dtype="float32")
    with pytest.raises(InputError, match="raw_scores must be True or False, not 'false'"):
        MLXRanker(mini, raw_scores="false")  # pyright: ignore[reportArgumentType]
    with pytest.raises(CheckpointNotFoundError, match="nowhere"):
        MLXRanker("nowhere")


def test_a_model_is_loaded_with_its_options():
    ranker = MLXRanker("mini", dtype="bfloat16", max_length=64)
    assert (ranker._reranker.dtype, ranker._reranker.max_length) == ("bfloat16", 64)
