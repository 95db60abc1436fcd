"""Explanations with the options that are usual, and what their highlights show."""

from itertools import pairwise

import numpy as np

from mlx_rerank import Reranker
from mlx_rerank.models.mapping import SIGMOID
from mlx_rerank.pairs.batching import Batching
from mlx_rerank.scoring.explanation import Explanation, Highlight
from mlx_rerank.scoring.occlusion import explain
from mlx_rerank.scoring.stopping import Stop


def explained(reranker: Reranker, query: str, document: str, **options) -> Explanation:
    batching = Batching(512, side_by_side=reranker.engine.side_by_side)
    usual = {"limits": reranker.limits, "batching": batching, "mapping": SIGMOID, "stop": Stop()}
    return explain(reranker.encoder, reranker.engine, query, document, **(usual | options))


def shown(text: str, highlights: tuple[Highlight, ...]) -> list[str]:
    return [text[highlight.start : highlight.end] for highlight in highlights]


def assert_sound(reranker: Reranker, found: Explanation) -> None:
    """Check that highlights are in order, apart, trimmed, within what was read, and of all of it."""
    q, d = found.query_highlights, found.document_highlights
    for text, highlights, span in ((found.query, q, (0, len(found.query))), (found.document, d, found.span)):
        assert all(span[0] <= h.start < h.end <= span[1] for h in highlights)
        assert all(a.end <= b.start for a, b in pairwise(highlights))
        assert all(word == word.strip() for word in shown(text, highlights))
        assert all(np.isfinite(h.weight) for h in highlights)
    covered = {place for h in d for place in range(h.start, h.end)}
    for a, b in reranker.encoder.tokens(found.document)[1].tolist():
        if a >= found.span[0] and b <= found.span[1]:
            assert {place for place in range(a, b) if not found.document[place].isspace()} <= covered
