"""Pairs for calibration and comparison if the user gives none: the package's own, or made from a corpus."""

import json
from collections.abc import Sequence
from pathlib import Path

_COMPARED, _QUERIES, _QUERY_WORDS = 16, 4, 12  # texts of a corpus; how many of them give queries; words of each query
_FILE = Path(__file__).parents[1] / "assets" / "samples.json"


def sample_pairs() -> list[tuple[str, str]]:
    """Return 132 pairs: six queries, each in another language, with 22 documents in 13 languages each.

    The documents range from an empty text to one that is longer than 512 tokens.
    """
    samples = json.loads(_FILE.read_text(encoding="utf-8"))
    return [(query, document) for query in samples["queries"] for document in samples["documents"]]


def pairs_from_corpus(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return up to 64 pairs made from a corpus: the first words of some texts as queries, some texts as documents."""
    some = [text for text in texts if text.strip()]
    some = some[:: -(-len(some) // _COMPARED)] if some else []
    queries = [" ".join(text.split()[:_QUERY_WORDS]) for text in some[:_QUERIES]]
    return [(query, document) for query in queries for document in some]
