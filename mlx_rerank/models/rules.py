"""Rules: which tensors of a checkpoint each parameter is made of, what shapes they have, and how they are joined."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np

Shapes = Sequence[tuple[int, ...]]


class Source(NamedTuple):
    """A tensor of a checkpoint, by its name there, and the shape that it must have."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Join:
    """How a parameter is made of tensors, and how the tensors are restored from it.

    Args:
        join: takes the tensors, gives the parameter, lazily.
        separate: takes the parameter, float32 in numpy, and the tensors' shapes, gives the tensors. `proof` restores a
            checkpoint with it, so it must not use MLX.
        shape: takes the tensors' shapes, gives the parameter's.
    """

    join: Callable[..., mx.array]
    separate: Callable[[np.ndarray, Shapes], list[np.ndarray]]
    shape: Callable[[Shapes], tuple[int, ...]]


@dataclass(frozen=True)
class Rule:
    """One parameter.

    Args:
        target: its path in the model.
        sources: the tensors that it is made of.
        how: they are joined.
    """

    target: str
    sources: tuple[Source, ...]
    how: Join

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's."""
        return self.how.shape([source.shape for source in self.sources])


def _stack(*tensors: mx.array) -> mx.array:
    """Stack matrices or vectors along the first axis."""
    return tensors[0] if len(tensors) == 1 else mx.concatenate(list(tensors), axis=0)


def _unstack(value: np.ndarray, shapes: Shapes) -> list[np.ndarray]:
    """Cut a matrix or vector into those that were stacked."""
    ends = np.cumsum([shape[0] for shape in shapes])
    return [np.ascontiguousarray(part) for part in np.split(value, ends[:-1])]


def _stacked(shapes: Shapes) -> tuple[int, ...]:
    """Return the shape of stacked matrices or vectors."""
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


STACKED = Join(_stack, _unstack, _stacked)


def copied(target: str, source: str, shape: tuple[int, ...]) -> Rule:
    """Return the rule of a parameter that is one tensor."""
    return Rule(target, (Source(source, shape),), STACKED)


def linear(target: str, sources: Sequence[str], outputs: int, inputs: int, *, bias: bool = True) -> list[Rule]:
    """Return the rules of a linear module's weight and bias, each stacked from those of other modules.

    Args:
        target: path of the module.
        sources: paths of the modules in the checkpoint.
        outputs: of each of these modules.
        inputs: of every module.
        bias: whether they have one.
    """
    shapes = {"weight": (outputs, inputs)} | ({"bias": (outputs,)} if bias else {})
    return [
        Rule(f"{target}.{kind}", tuple(Source(f"{source}.{kind}", shape) for source in sources), STACKED)
        for kind, shape in shapes.items()
    ]


def norm(target: str, source: str, size: int, *, bias: bool = True) -> list[Rule]:
    """Return the rules of a normalisation's weight and, if it has one, bias."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return [copied(f"{target}.{kind}", f"{source}.{kind}", (size,)) for kind in kinds]
