"""The arithmetic and the memory traffic that a workload needs, from shapes alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlx_rerank.models.cost import Cost
from mlx_rerank.models.shape import Shape as ModelShape

Shape = tuple[int, int]  # rows, and tokens of each


@dataclass(frozen=True)
class Operation:
    """Part of a forward pass.

    Args:
        name: what it computes.
        flops: multiplications and additions.
        bytes: read and written at least: weights, inputs and outputs once each.
    """

    name: str
    flops: int
    bytes: int


def operations(
    cost: Cost, batches: Iterable[Shape], itemsize: int, *, first_token_only: bool = False
) -> list[Operation]:
    """Return the operations of a forward pass through every batch.

    Products and attention count; norms, activations and sums are taken to cost nothing and to be part of them, so that
    what follows from this is a bound that no run can pass.

    Args:
        cost: of the model.
        batches: rows and tokens of each; padding counts as tokens do.
        itemsize: bytes of a weight and of an activation.
        first_token_only: the last layer computes no more than what reaches the head: keys and values of all tokens,
            and everything else of the first alone.
    """
    found, shape = [], cost.shape
    for rows, length in batches:
        found.append(_embeddings(shape, rows * length, itemsize))
        for layer in range(shape.num_hidden_layers):
            last = first_token_only and layer == shape.num_hidden_layers - 1
            found += _layer(cost, rows, length, 1 if last else length, itemsize)
        D = shape.hidden_size
        found += [_product("head", rows, D, D, itemsize), _product("head", rows, D, 1, itemsize)]
    return found


def ceiling(found: Sequence[Operation], flops_per_second: float, bytes_per_second: float) -> float:
    """Return the least seconds that operations take one after the other, each bound by arithmetic or by memory.

    Source: "Roofline: an insightful visual performance model", Williams, Waterman and Patterson 2009.
    """
    return sum(max(each.flops / flops_per_second, each.bytes / bytes_per_second) for each in found)


def by_name(found: Sequence[Operation]) -> list[Operation]:
    """Return one operation for each name, with the sums of all that have it."""
    names = list(dict.fromkeys(each.name for each in found))
    of = {name: [each for each in found if each.name == name] for name in names}
    return [Operation(n, sum(each.flops for each in of[n]), sum(each.bytes for each in of[n])) for n in names]


def _layer(cost: Cost, rows: int, length: int, queries: int, itemsize: int) -> list[Operation]:
    """Return a layer's operations, if only the first `queries` tokens of each row are carried on."""
    D, (up, down) = cost.shape.hidden_size, cost.products[2:]
    tokens, kept = rows * length, rows * queries
    projections = [_product("projections", tokens, D, 3 * D, itemsize)]
    if queries < length:
        projections = [
            _product("projections", tokens, D, 2 * D, itemsize),
            _product("projections", kept, D, D, itemsize),
        ]
    return [
        *projections,
        Operation("attention", 2 * 2 * rows * queries * length * D, (2 * tokens + 2 * kept) * D * itemsize),
        _product("projections", kept, D, D, itemsize),
        _product("feed-forward", kept, *up, itemsize),
        _product("feed-forward", kept, *down, itemsize),
    ]


def _product(name: str, rows: int, inputs: int, outputs: int, itemsize: int) -> Operation:
    """Return the product of [rows, inputs] with a weight [outputs, inputs]."""
    size = rows * inputs + inputs * outputs + rows * outputs
    return Operation(name, 2 * rows * inputs * outputs, size * itemsize)


def _embeddings(shape: ModelShape, tokens: int, itemsize: int) -> Operation:
    """Return the lookup of two rows a token, whose sum is written."""
    return Operation("embeddings", 0, 3 * tokens * shape.hidden_size * itemsize)
