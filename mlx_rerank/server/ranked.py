"""A result, before it is put into a client's shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ranked:
    """A document of a ranking, before it is put into a shape: as it was given, and the text of it that was read."""

    index: int
    score: float
    document: str | Mapping[str, Any]
    text: str
    tokens: int
    truncated_tokens: int
    share_read: float
    span: list[int]
