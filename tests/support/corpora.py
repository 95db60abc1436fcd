"""Texts that a vocabulary is trimmed to."""

from texts import PAIRS

from mlx_rerank.pairs.samples import sample_pairs

SAMPLES = sorted({text for pair in sample_pairs() for text in pair if text})
HOSTILE = sorted({text[:400] for pair in PAIRS for text in pair})
CORPORA = {
    "latin": [text for text in SAMPLES if text.isascii()],
    "samples": SAMPLES,
    "thirds": [*SAMPLES[::3], *HOSTILE[::3]],
    "hostile": HOSTILE,
}
