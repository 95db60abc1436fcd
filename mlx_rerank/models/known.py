"""Models of the hub that belong to a family, and what is known of them without reading their weights."""

from dataclasses import dataclass

TINY = "tiny models with its traits, against transformers"  # tests/families, tests/parity
LEFT_AS_LOGITS = "its makers leave scores as logits"


@dataclass(frozen=True)
class KnownModel:
    """A model of the hub. What its files were not seen to say is None.

    Args:
        repository: owner and name on the hub.
        special: what sets it apart from others of its family.
        parameters: in millions.
        languages: that it was trained to read.
        licence: of its weights.
        longest_pair: most tokens of a pair, special tokens included.
        checked: how what it computes was checked here.
    """

    repository: str
    special: str = ""
    parameters: int | None = None
    languages: str | None = None
    licence: str | None = None
    longest_pair: int | None = None
    checked: str = TINY
