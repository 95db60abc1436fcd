"""LanceDB's own searches in a table on disk, with this package's reranker in them."""

import logging
from typing import Any, cast

import bounds
import lancedb
import pyarrow as pa
import pytest
from lancedb import query as queries
from lancedb.index import FTS
from lancedb_tables import QUERY, SCHEMA, TEXTS, embedded, reranked, rows_of, search

from mlx_rerank import Reranker
from mlx_rerank.errors import InputError
from mlx_rerank.integrations.lancedb import MLXReranker

pytestmark = pytest.mark.anyio
MatchQuery, PhraseQuery = cast(Any, queries.MatchQuery), cast(Any, queries.PhraseQuery)  # all but two have defaults


@pytest.fixture
def table(tmp_path):
    table = lancedb.connect(tmp_path).create_table("passages", rows_of(TEXTS), schema=SCHEMA)
    table.create_index("text", config=FTS(with_position=True))
    return table


def ranked(mini: Reranker, table: pa.Table, **how: Any) -> list[tuple[int, Any]]:
    """What Reranker.rank makes of the texts of rows."""
    ranking = mini.rank(QUERY, table["text"].to_pylist(), **how)
    rows = [(table["id"][result.index].as_py(), result.score) for result in ranking]
    return bounds.ranking(rows, raw=how.get("raw_scores", False))


def rows(table: pa.Table) -> list[tuple[int, float]]:
    return list(zip(table["id"].to_pylist(), table["_relevance_score"].to_pylist(), strict=True))


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize("how", [{}, {"top_n": 2}, {"top_n": 99}, {"raw_scores": True}])
@pytest.mark.parametrize("kind", ["vector", "fts"])
def test_rows_come_in_the_order_of_rank_with_its_scores(mini, table, kind, how):
    found = search(table, kind).limit(5).to_arrow()
    assert len(found) == 5
    again = reranked(table, kind, MLXReranker(mini, **how)).limit(5).to_arrow()
    assert rows(again) == ranked(mini, found, **how)
    assert rows(again)[0][0] == 2
    assert again["id"].to_pylist() != found["id"].to_pylist()[: len(again)]


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_a_hybrid_search_gives_each_row_once(mini, table):
    pieces = [search(table, kind).limit(2).to_arrow() for kind in ("vector", "fts")]
    expected = {i for piece in pieces for i in piece["id"].to_pylist()}
    assert len(expected) == 3
    found = reranked(table, "hybrid", MLXReranker(mini)).limit(2).to_arrow()
    alone = {text: mini.score(QUERY, text) for text in TEXTS}
    best = sorted(expected, key=lambda i: -alone[TEXTS[i]])[:2]
    bounds.apart([alone[TEXTS[i]] for i in best])
    assert rows(found) == [(i, pytest.approx(alone[TEXTS[i]], abs=1e-5)) for i in best]


@pytest.mark.parametrize("kind", ["vector", "fts", "hybrid"])
def test_other_columns_keep_their_values_and_types(mini, table, kind):
    found = reranked(table, kind, MLXReranker(mini)).to_arrow()
    assert found.schema == SCHEMA.append(pa.field("_relevance_score", pa.float32()))
    given = {row["id"]: row for row in table.to_arrow().to_pylist()}
    assert found.drop_columns("_relevance_score").to_pylist() == [given[i] for i in found["id"].to_pylist()]
    assert found["_relevance_score"].to_pylist() == sorted(found["_relevance_score"].to_pylist(), reverse=True)


@pytest.mark.parametrize(
    ("kind", "kept"), [("vector", {"_distance"}), ("fts", {"_score"}), ("hybrid", {"_distance", "_score"})]
)
def test_all_scores_are_kept_where_asked(mini, table, kind, kept):
    plain = reranked(table, kind, MLXReranker(mini)).to_arrow()
    found = reranked(table, kind, MLXReranker(mini, return_score="all")).to_arrow()
    assert set(found.column_names) == {*plain.column_names, *kept, "_rowid"}
    columns = [name for name in plain.column_names if name != "_relevance_score"]
    assert found.select(columns) == plain.select(columns)
    assert rows(found) == bounds.ranking(rows(plain))
    for name, piece in (("_distance", "vector"), ("_score", "fts")):
        if name in kept:
            alone = search(table, piece).to_arrow()
            expected = dict(zip(alone["id"].to_pylist(), alone[name].to_pylist(), strict=True))
            assert found[name].to_pylist() == [expected.get(i) for i in found["id"].to_pylist()]
            assert found.schema.field(name).type == pa.float32()


def test_merged_by_hand_a_row_of_both_searches_has_both_scores(mini, table):
    pieces = [search(table, kind).limit(2).with_row_id(True).to_arrow() for kind in ("vector", "fts")]
    before = [piece.to_pylist() for piece in pieces]
    found = MLXReranker(mini, return_score="all").rerank_hybrid(QUERY, *pieces)
    assert [piece.to_pylist() for piece in pieces] == before
    for name, piece in zip(("_distance", "_score"), pieces, strict=True):
        expected = dict(zip(piece["id"].to_pylist(), piece[name].to_pylist(), strict=True))
        assert found[name].to_pylist() == [expected.get(i) for i in found["id"].to_pylist()]
    assert found.schema.field("vector").type == SCHEMA.field("vector").type
    assert found["_score"].null_count
    assert any(row["_score"] and row["_distance"] is not None for row in found.to_pylist())


@pytest.mark.parametrize("kind", ["vector", "fts", "hybrid"])
def test_limits_filters_offsets_and_selections_hold(mini, table, kind):
    query = reranked(table, kind, MLXReranker(mini)).where("id > 2 AND place.page < 6", prefilter=True)
    assert set(query.to_arrow()["id"].to_pylist()) == {3, 4, 5}
    found = query.select(["id", "text"]).limit(2).to_arrow()
    assert found.column_names == ["id", "text", "_relevance_score"]
    assert found["id"].to_pylist() == [3, 4]
    assert len(reranked(table, kind, MLXReranker(mini)).limit(2).offset(1).to_list()) == 2
    assert reranked(table, kind, MLXReranker(mini, top_n=1)).to_list()[0]["text"] == TEXTS[2]


@pytest.mark.parametrize("kind", ["vector", "fts", "hybrid"])
@pytest.mark.parametrize("score", ["relevance", "all"])
def test_nothing_found_is_an_empty_table(mini, table, kind, score):
    reranker = MLXReranker(mini, return_score=score)
    found = reranked(table, kind, reranker).where("id > 99", prefilter=True).to_arrow()
    assert len(found) == 0
    assert found.schema.field("_relevance_score").type == pa.float32()
    assert found.schema.field("vector").type == SCHEMA.field("vector").type


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_one_search_may_find_nothing(mini, table):
    empty, full = (search(table, "fts", query).with_row_id(True).to_arrow() for query in ("zzz", QUERY))
    near = search(table, "vector").with_row_id(True).to_arrow()
    reranker = MLXReranker(mini)
    assert rows(reranker.rerank_hybrid(QUERY, near, empty)) == ranked(mini, near)
    assert rows(reranker.rerank_hybrid(QUERY, near.slice(0, 0), full)) == ranked(mini, full)
    assert rows(reranker.rerank_hybrid(QUERY, near, pa.table({}))) == ranked(mini, near)
    assert rows(reranker.rerank_hybrid(QUERY, near.slice(0, 0), empty)) == []
    assert reranked(table, "hybrid", reranker, "zzz").to_list()


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_several_vector_searches_are_ranked_together(mini, table):
    searches = [table.search(embedded(text)).limit(2).with_row_id(True) for text in (QUERY, TEXTS[2], TEXTS[5])]
    pieces = [each.to_arrow() for each in searches]
    together = pa.concat_tables(pieces)
    assert len(set(together["id"].to_pylist())) < len(together)
    assert rows(MLXReranker(mini).rerank_multivector(pieces, QUERY)) == ranked(mini, together)
    once = MLXReranker(mini).rerank_multivector(pieces, QUERY, deduplicate=True)
    assert sorted(once["id"].to_pylist()) == sorted(set(together["id"].to_pylist()))
    assert once["id"][0].as_py() == 2


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize("query", [MatchQuery("bamboo", "text"), PhraseQuery("giant panda", "text")])
def test_queries_that_are_objects_are_ranked_for_their_text(mini, table, query):
    found = table.search(query).to_arrow()
    again = table.search(query).rerank(MLXReranker(mini)).to_arrow()
    assert again["_relevance_score"].to_pylist() == [
        bounds.near(result.score) for result in mini.rank(query.query, found["text"].to_pylist())
    ]
    hybrid = table.search(query_type="hybrid").vector(embedded(QUERY)).text(query).rerank(MLXReranker(mini)).to_arrow()
    assert len(hybrid) == len(TEXTS)


def test_a_query_of_several_texts_is_refused(mini, table):
    query = queries.BooleanQuery(
        [(queries.Occur.MUST, MatchQuery("bamboo", "text")), (queries.Occur.SHOULD, MatchQuery("giant", "text"))]
    )
    with pytest.raises(InputError, match="query must be a text, not BooleanQuery"):
        table.search(query).rerank(MLXReranker(mini)).to_arrow()


async def test_asynchronous_searches_take_it(mini, table, tmp_path):
    opened = await (await lancedb.connect_async(tmp_path)).open_table("passages")
    reranker, vector = MLXReranker(mini), embedded(QUERY)
    fts = opened.query().nearest_to_text(QUERY)
    near = opened.query().nearest_to(vector)
    queries = {
        "fts": fts.rerank(reranker),
        "vector": near.rerank(reranker, query_string=QUERY),
        "hybrid": opened.query().nearest_to(vector).nearest_to_text(QUERY).rerank(reranker),
    }
    for kind, query in queries.items():
        expected = rows(reranked(table, kind, reranker).to_arrow())
        assert rows(await query.to_arrow()) == bounds.ranking(expected), kind


def test_a_blank_query_is_a_query(mini, table):
    assert len(MLXReranker(mini).rerank_vector(" ", table.to_arrow())) == len(TEXTS)


def test_the_texts_column_has_any_name_and_text_type(mini, table):
    large = table.to_arrow().rename_columns({"text": "body"})
    large = large.set_column(1, "body", large["body"].cast(pa.large_string()))
    assert rows(MLXReranker(mini, column="body").rerank_fts(QUERY, large)) == ranked(mini, table.to_arrow())


def test_a_column_that_is_missing_is_named(mini, table):
    with pytest.raises(InputError, match=r"no column 'body', but id, text, .*MLXReranker\(column=\.\.\.\)"):
        reranked(table, "fts", MLXReranker(mini, column="body")).to_arrow()
    with pytest.raises(InputError, match=r"documents\[0\] must be a text"):
        reranked(table, "fts", MLXReranker(mini, column="id")).to_arrow()
    found = search(table, "fts").to_arrow()
    with pytest.raises(InputError, match=r"no column '_rowid', .*with_row_id\(True\)"):
        MLXReranker(mini).rerank_hybrid(QUERY, found, found)
    with pytest.raises(InputError, match="raw_scores must be True or False, not 'false'"):
        MLXReranker(mini, raw_scores="false")  # pyright: ignore[reportArgumentType]


def test_cut_documents_are_logged(table, caplog):
    with caplog.at_level(logging.WARNING, "mlx_rerank"):
        found = MLXReranker(max_length=20, top_n=1).rerank_vector(QUERY, table.to_arrow())
    assert [record.getMessage()[:35] for record in caplog.records] == ["5 of 6 pairs were cut to 20 tokens;"]
    assert len(found) == 1
