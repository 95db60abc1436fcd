"""From logits to scores in 0..1: each family states the mapping of its models."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlx_rerank.errors import CheckpointError


@dataclass(frozen=True)
class ScoreMapping:
    """How a model's logits become scores; higher logits never have lower scores.

    Args:
        name: under which a converted directory records it.
        function: takes logits [N], gives scores in 0..1 in their dtype.
    """

    name: str
    function: Callable[[np.ndarray], np.ndarray]

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Return the scores of logits."""
        return self.function(logits)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Map logits to 0..1 in their own dtype, without overflow and without losing small values."""
    return np.exp(-np.logaddexp(0, -logits))


SIGMOID = ScoreMapping("sigmoid", sigmoid)
_KNOWN = {mapping.name: mapping for mapping in (SIGMOID,)}


def mapping_named(name: object) -> ScoreMapping:
    """Return the mapping that a converted directory records.

    Raises:
        CheckpointError: there is none of that name.
    """
    if not isinstance(name, str) or name not in _KNOWN:
        raise CheckpointError(
            f"config.json records the score mapping {name!r}, which is not one of {', '.join(_KNOWN)}: convert the "
            "model again, or install the version of mlx-rerank that converted it"
        )
    return _KNOWN[name]
