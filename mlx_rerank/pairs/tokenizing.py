"""A stranger's tokenizer.json, and the tokenizers library, whose failures become errors of this package."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tokenizers import Tokenizer, models

from mlx_rerank.errors import CheckpointError, RerankError

_NEVER = 2**31 - 1  # tokens
_MOST_GROWTH = 100  # times that a text may become longer: twenty replacements of a letter by two make a million of it


def parse_tokenizer(data: bytes, name: object) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json, which neither pads nor truncates, but knows at which side it would.

    Args:
        data: the bytes of the file.
        name: of the file, for errors.

    Raises:
        CheckpointError: it cannot be read, makes texts far longer, or fails on a text of one letter.
    """
    with failures_of(name):
        tokenizer = Tokenizer.from_buffer(data)
        truncation = tokenizer.truncation
        tokenizer.no_truncation()  # first: it may be one that no text survives
        tokenizer.no_padding()
        if truncation:  # the side is its makers' wish
            tokenizer.enable_truncation(_NEVER, direction=truncation["direction"])
        normalizer = tokenizer.normalizer
        growth = _growth(json.loads(normalizer.__getstate__())) if normalizer else 1.0
        if growth > _MOST_GROWTH:
            raise ValueError(f"it may make a text {growth:.3g} times as long, and {_MOST_GROWTH} times are allowed")
        tokenizer.encode("a", add_special_tokens=False)
    return tokenizer


@contextmanager
def failures_of(name: object) -> Iterator[None]:
    """Raise CheckpointError for whatever the tokenizers library raises, naming the tokenizer's file.

    Errors of this package pass as they are.

    Besides plain Exceptions these are panics, which derive from BaseException and belong to no module that one could
    import: code that expects errors would let them pass.
    """
    try:
        yield
    except RerankError:
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise CheckpointError(f"the tokenizer of {name} cannot be used: {error}") from error
        raise


def largest_id(tokenizer: Tokenizer) -> int:
    """Return the largest id that a tokenizer may give; -1 where it has no token."""
    added = max(tokenizer.get_added_tokens_decoder(), default=-1)
    if isinstance(tokenizer.model, models.Unigram):  # ids are places in a list: to ask for all would take long
        return max(added, tokenizer.get_vocab_size(with_added_tokens=False) - 1)
    return max(added, max(tokenizer.get_vocab(with_added_tokens=False).values(), default=-1))


def _growth(normalizer: Any) -> float:
    """Return how many times as long a text may become by all replacements of a normalizer, one after the other."""
    if isinstance(normalizer, list):
        product = 1.0
        for step in normalizer:
            product *= _growth(step)
        return product
    if not isinstance(normalizer, dict):
        return 1.0
    if "normalizers" in normalizer:
        return _growth(normalizer["normalizers"])
    if normalizer.get("type") != "Replace":
        return 1.0
    found = normalizer["pattern"].get("String", "")  # a regular expression may match nothing at all, at every place
    content = len(normalizer["content"])
    return max(1.0, content / len(found)) if found else 1.0 + content
