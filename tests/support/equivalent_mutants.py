"""Changes of code that no test can notice, and why. They need not be tried, and count as not noticed all the same."""

_STRICT = "strict=True asserts what the lines before make sure of"
_EQUIVALENT: dict[str, dict[str, str]] = {  # by file, then by the line as it is changed
    "checkpoints/card.py": {
        "saved = f\"{record['bytes'] / 1e6:.1f} MB instead of {record['source_bytes'] / 999999.0:.1f} MB\"": (
            "a millionth of a size is less than what is rounded off"
        ),
    },
    "checkpoints/copies.py": {
        "for _ in range( 3): # where a copy turns out to be damaged, another one is made": (
            "where each copy is damaged, the model itself is loaded, one copy later"
        ),
    },
    "compat/sentence_transformers/cross_encoder.py": {
        "return scores[ -1] if single else scores if pairs else np.array([])": "a single pair has one score",
    },
    "pairs/encoder.py": {
        'form = limits.long_documents if kept_d is not d else "truncate"': (
            "of a document that is kept whole, windows and truncation read the same"
        ),
        "columns = (inverse, self._owners, np.reshape(self._spans, (- 2, 2)), self._truncated)": (
            "NumPy works out any negative length"
        ),
    },
    "scoring/explanation.py": {
        "shown.stylize(styles[highlight.weight <= 0], highlight.start, highlight.end)": "a weight of 0 has no style",
    },
    "scoring/score_cache.py": {
        "fields = _VALUE.pack(*score, 1)[:-4]": "the number in the checksum's place is cut off",
    },
}


def reason(path: str, old: str, new: str) -> str:
    """Return why a change of a line makes no difference; nothing if it is not known to make none.

    Args:
        path: of the file, below mlx_rerank.
        old: the line as it is.
        new: the line as it is changed.
    """
    if new == " ".join(old.split()).replace("strict=True", "strict=False"):
        return _STRICT
    return _EQUIVALENT.get(path, {}).get(new, "")
