"""Pairs to calibrate and to compare on where the user gives none: those of the package, or of a corpus."""

import json
from collections.abc import Sequence
from pathlib import Path

_COMPARED, _QUERIES, _QUERY_WORDS = 16, 4, 12  # texts of a corpus, and of their beginnings as queries
_FILE = Path(__file__).parents[1] / "assets" / "samples.json"


def sample_pairs() -> list[tuple[str, str]]:
    """Return 132 pairs: six queries, each in another language, with 22 documents in 13 languages each.

    The documents range from nothing at all to one that is longer than 512 tokens.
    """
    samples = json.loads(_FILE.read_text(encoding="utf-8"))
    return [(query, document) for query in samples["queries"] for document in samples["documents"]]


def pairs_from_corpus(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of a corpus's own texts, up to 64: the first words of some, with some of them."""
    some = [text for text in texts if text.strip()]
    some = some[:: -(-len(some) // _COMPARED)] if some else []
    queries = [" ".join(text.split()[:_QUERY_WORDS]) for text in some[:_QUERIES]]
    return [(query, document) for query in queries for document in some]
