"""Pairs that come with the package, to calibrate and to compare on where the user gives none."""

import json
from pathlib import Path

_FILE = Path(__file__).parent / "assets" / "samples.json"


def sample_pairs() -> list[tuple[str, str]]:
    """Return 132 pairs: six queries, each in another language, with 22 documents in 13 languages each.

    The documents range from nothing at all to one that is longer than 512 tokens.
    """
    samples = json.loads(_FILE.read_text(encoding="utf-8"))
    return [(query, document) for query in samples["queries"] for document in samples["documents"]]
