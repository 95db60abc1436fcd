"""LanceDB's reranker by itself: rows given by hand, rows that it refuses, and how it is made."""

import lancedb
import pyarrow as pa
import pytest
from lancedb.rerankers import Reranker as BaseReranker
from lancedb_tables import QUERY, SCHEMA, TEXTS, reranked, rows_of

from mlx_rerank.errors import CheckpointNotFoundError, InputError
from mlx_rerank.integrations.lancedb import MLXReranker


def test_equal_scores_keep_the_order_given(mini):
    found = pa.Table.from_pylist(rows_of([TEXTS[3], TEXTS[2], TEXTS[0], TEXTS[2]]), SCHEMA)
    for rows_given, best in ((found, [1, 3]), (found.take([3, 2, 1, 0]), [3, 1])):
        assert MLXReranker(mini, top_n=2).rerank_vector(QUERY, rows_given)["id"].to_pylist() == best


def test_a_row_without_a_text_is_named(mini, tmp_path):
    table = lancedb.connect(tmp_path).create_table("passages", rows_of([*TEXTS[:2], None, ""]), schema=SCHEMA)
    rows_found = table.to_arrow()
    told = r"row 2 has no text: its 'text' is null; .*where\('text IS NOT NULL', prefilter=True\)"
    for method in ("rerank_vector", "rerank_fts"):
        with pytest.raises(InputError, match=told):
            getattr(MLXReranker(mini), method)(QUERY, rows_found)
    query = reranked(table, "vector", MLXReranker(mini))
    with pytest.raises(InputError, match="has no text"):
        query.to_arrow()
    assert len(query.where("text IS NOT NULL", prefilter=True).to_arrow()) == 3


def test_what_is_wrong_is_told_at_once(mini):
    with pytest.raises(InputError, match="dtypes: no option of Reranker, which has dtype, "):
        MLXReranker(dtypes="float32")
    with pytest.raises(InputError, match="loaded already"):
        MLXReranker(mini, dtype="float32")
    with pytest.raises(CheckpointNotFoundError, match="nowhere"):
        MLXReranker("nowhere")
    with pytest.raises(InputError, match="top_n must be a whole number of at least 1, not 0"):
        MLXReranker(mini, top_n=0)
    with pytest.raises(InputError, match="return_score must be 'relevance' or 'all', not 'score'"):
        MLXReranker(mini, return_score="score")


def test_it_is_a_reranker_of_lancedb_and_is_loaded_with_its_options():
    reranker = MLXReranker("mini", dtype="bfloat16", max_length=64)
    assert isinstance(reranker, BaseReranker)
    assert (str(reranker), reranker.score) == ("MLXReranker", "relevance")
    assert (reranker._reranker.dtype, reranker._reranker.max_length) == ("bfloat16", 64)
