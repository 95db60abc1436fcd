"""LanceDB: a reranker for vector, full-text and hybrid searches."""

from pathlib import Path
from typing import Any

import numpy as np

from mlx_rerank.device.optional import framework
from mlx_rerank.errors import InputError
from mlx_rerank.integrations import load
from mlx_rerank.pairs.arguments import require_whole_number
from mlx_rerank.pairs.switches import require_boolean
from mlx_rerank.scoring.reranker import Reranker
from mlx_rerank.scoring.results import log_truncation

with framework("LanceDB", extra="lancedb"):
    import pyarrow as pa
    from lancedb.query import FullTextQuery
    from lancedb.rerankers import Reranker as BaseReranker


class MLXReranker(BaseReranker):
    """A reranker for the `rerank` method of any of LanceDB's queries.

    The query's limit is how many rows each search hands over, and `top_n` how many of them come back. LanceDB has no
    asynchronous rerankers: an asynchronous query holds up the event loop while this one works.
    """

    def __init__(
        self,
        model: str | Path | Reranker = "mini",
        *,
        column: str = "text",
        top_n: int | None = None,
        raw_scores: bool = False,
        return_score: str = "relevance",
        **options: Any,
    ) -> None:
        """Load the model.

        Args:
            model: its name, as for `Reranker`; or a Reranker, which several of these may share.
            column: which one holds the texts.
            top_n: how many rows to return; all if None.
            raw_scores: give logits instead of scores in 0..1.
            return_score: "relevance" returns the column `_relevance_score` alone; "all" keeps `_distance` and `_score`,
                those of the searches, beside it.
            options: keyword arguments of Reranker, where the model is a name.

        Raises:
            InputError: an option is unknown, top_n is below one, or return_score is neither of the two.
            RerankError: as `Reranker`.
        """
        if return_score not in ("relevance", "all"):
            raise InputError(f"return_score must be 'relevance' or 'all', not {return_score!r}")
        super().__init__(return_score)
        self.column = column
        self.top_n = None if top_n is None else require_whole_number("top_n", top_n)
        self.raw_scores = require_boolean("raw_scores", raw_scores)
        self._reranker = load(model, options)

    def rerank_vector(self, query: str, vector_results: pa.Table) -> pa.Table:
        """Rerank what a vector search found.

        Args:
            query: what is asked, as a text.
            vector_results: rows with the texts' column.

        Returns:
            Its rows and float32 `_relevance_score`, the best first, equal ones in the order given.

        Raises:
            InputError: the texts' column is missing or has a null, or the query is no text.
            NonFiniteScoreError: the model produced NaN or infinity.
        """
        return self._rerank(query, vector_results)

    def rerank_fts(self, query: str | FullTextQuery, fts_results: pa.Table) -> pa.Table:
        """Rerank what a full-text search found, as `rerank_vector` does; the query may be a match or phrase query."""
        return self._rerank(query, fts_results)

    def rerank_hybrid(self, query: str | FullTextQuery, vector_results: pa.Table, fts_results: pa.Table) -> pa.Table:
        """Rerank what both searches found, each row once, as `rerank_fts` does.

        Args:
            query: of the full-text search.
            vector_results: rows with the texts' column and `_rowid`.
            fts_results: the same.
        """
        for results in (vector_results, fts_results):
            if len(results):
                _require_column(results, "_rowid", "search with .with_row_id(True)")
        merged = self.merge_results(vector_results, fts_results)
        if "_score" in fts_results.column_names:  # merging drops it where both found a row
            found = {row["_rowid"]: row["_score"] for row in fts_results.select(["_rowid", "_score"]).to_pylist()}
            scores = pa.array([found.get(row) for row in merged["_rowid"].to_pylist()], pa.float32())
            merged = merged.set_column(merged.column_names.index("_score"), "_score", scores)
        return self._rerank(query, merged)

    def _rerank(self, query: str | FullTextQuery, results: pa.Table) -> pa.Table:
        """Return rows by their relevance to a query."""
        text: Any = getattr(query, "query", query)  # of a match or phrase query
        ranking = self._reranker.rank(text, self._texts(results), raw_scores=self.raw_scores, show_progress=False)
        log_truncation(np.array([result.truncated_tokens for result in ranking]), self._reranker.max_length)
        ranking = ranking[: self.top_n]
        ranked = results.take(pa.array([result.index for result in ranking], pa.int64()))
        ranked = ranked.append_column("_relevance_score", pa.array([result.score for result in ranking], pa.float32()))
        dropped = {"_distance", "_score"} if self.score == "relevance" else set()
        return ranked.drop_columns([name for name in ranked.column_names if name in dropped])

    def _texts(self, results: pa.Table) -> list[str]:
        """Return the texts of rows; every row must have one."""
        _require_column(results, self.column, "select it, or name the texts' column with MLXReranker(column=...)")
        texts = results[self.column].to_pylist()
        for i, text in enumerate(texts):
            if text is None:
                raise InputError(
                    f"row {i} has no text: its {self.column!r} is null; leave such rows out, for example with "
                    f".where('{self.column} IS NOT NULL', prefilter=True)"
                )
        return texts


def _require_column(results: pa.Table, name: str, fix: str) -> None:
    """Refuse rows without a column."""
    if name not in results.column_names:
        raise InputError(f"results have no column {name!r}, but {', '.join(results.column_names)}: {fix}")
