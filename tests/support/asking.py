"""A walk through the parameters of what is public: each is honoured, warned of or refused, and none is forgotten."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from mlx_rerank.errors import RerankError


@dataclass(frozen=True)
class Asked:
    """What is asked for, and what comes of it.

    Args:
        given: arguments.
        refused: what the error says.
        warned: what the warning says.
        beside: arguments of both calls, without which the given ones mean nothing.
    """

    given: Mapping[str, Any]
    refused: str | None = None
    warned: str | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)

    def check(self, call: Callable[..., Any]) -> None:
        """Call with the arguments: the call must fail, or warn, or come to something else than without them."""
        if self.refused is not None:
            with pytest.raises(RerankError, match=self.refused):
                call(**{**self.beside, **self.given})
        elif self.warned is not None:
            with pytest.warns(UserWarning, match=self.warned):
                call(**{**self.beside, **self.given})
        else:
            before = seen(call(**self.beside))
            assert seen(call(**self.beside)) == before
            assert seen(call(**{**self.beside, **self.given})) != before


def seen(result: Any) -> Any:
    """Return a result in a form that can be compared, with numbers as far as rounding leaves them alone."""
    if isinstance(result, float | np.floating):
        return f"{type(result).__name__} {result:.3f}"
    if isinstance(result, np.ndarray):
        return ["array", *map(seen, result.tolist())]
    if isinstance(result, Mapping):
        return {key: seen(value) for key, value in result.items()}
    if isinstance(result, list | tuple):
        return [seen(value) for value in result]
    return repr(result)


def parameters(function: Callable[..., Any]) -> set[str]:
    """Return the names of a function's parameters."""
    return set(inspect.signature(function).parameters) - {"self"}
