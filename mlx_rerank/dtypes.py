"""The dtype policy: which dtypes a model may run in, which it runs in by default, and the audit that it stays in one.

MLX promotes without a word: a float32 bias, a scale given as an array, or arithmetic on an int mask turns all that
follows into float32. The audit traces a forward pass, without computing it or reading a weight, and names every
operation whose result has left the dtype.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from mlx_rerank.errors import InputError

NAMES = ("float16", "bfloat16", "float32")

FLOAT32_INSIDE = {
    "layer_norm": "mean and variance of a row are accumulated in float32; the result returns to the dtype",
    "attention": "softmax and its products are accumulated in float32; the result returns to the dtype",
}


def parse_dtype(name: str) -> mx.Dtype:
    """Return the MLX dtype called `name`.

    Raises:
        InputError: it is none of `NAMES`.
    """
    if name not in NAMES:
        raise InputError(f"dtype {name!r} is not one of {', '.join(NAMES)}")
    return getattr(mx, name)


def dtype_name(dtype: mx.Dtype) -> str:
    """Return the plain name of an MLX dtype, such as float16."""
    return str(dtype).rpartition(".")[2]


def default_dtype(device: mx.Device) -> mx.Dtype:
    """Return float16 for a GPU and float32 for a CPU, where half precision is slower and saves nothing."""
    return mx.float16 if device == mx.gpu else mx.float32


@dataclass(frozen=True)
class Violation:
    """An operation whose result is of another floating dtype than the model's.

    Args:
        path: the module it belongs to, such as ``layers.0.attention``.
        operation: MLX's name of it.
        operands: dtype and shape of each operand.
        result: dtype and shape of the result.
    """

    path: str
    operation: str
    operands: tuple[tuple[str, tuple[int, ...]], ...]
    result: tuple[str, tuple[int, ...]]


def audit(model: nn.Module, dtype: mx.Dtype, *arguments: mx.array | None) -> list[Violation]:
    """Trace a forward pass and list every operation that leaves a dtype.

    The logits that the model returns may be float32, and so may what happens inside `FLOAT32_INSIDE`, but not what
    comes out of it. Nothing is computed. Not for use while another thread runs a model: it wraps modules for a moment.

    Args:
        model: whose parameters are taken as they are, wrong dtypes included.
        dtype: what every floating result should have.
        arguments: of the model's call, such as token ids and a mask; their values do not matter.

    Returns:
        Violations, inputs of an operation before the operation; none is the answer to hope for.

    Source: `mlx.core.export_function` with a callback, MLX 0.32; tests/test_dtypes.py plants what it must find.
    """
    events: list[dict[str, Any]] = []
    given = [argument for argument in arguments if argument is not None]
    parameters: Any = model.parameters()

    def forward(*inputs: mx.array, **placeholders: mx.array) -> mx.array:
        model.update(tree_unflatten(list(placeholders.items())))
        values = iter(inputs)
        return model(*(None if argument is None else next(values) for argument in arguments))

    with _scopes_marked(model) as scopes:
        try:
            mx.export_function(events.append, forward, *given, **dict(tree_flatten(parameters)))
        finally:
            model.update(parameters)
    return list(_violations(events, dtype_name(dtype), scopes))


def _violations(events: list[dict[str, Any]], dtype: str, scopes: list[str]) -> Iterator[Violation]:
    """Follow values through a trace, keeping for each the module that it is in."""
    primitives = [event for event in events if event["type"] == "primitive"]
    returned = {name for event in events if event["type"] == "outputs" for name, *_ in event["outputs"]}
    for event in reversed(primitives):  # the cast to float32 on the way out is the one that is meant
        if event["name"] in ("AsType", "Depends") and returned & {name for name, *_ in event["outputs"]}:
            returned |= {event["inputs"][0][0]} if event["name"] == "Depends" else set()
    scope_of: dict[str, str] = {}
    for event in primitives:
        inputs = event["inputs"]
        if event["name"] == "Depends":
            scope = scopes[inputs[-1][1][0] - 1]
        else:
            known = [scope_of[name] for name, *_ in inputs if name in scope_of]
            if not known:  # made of constants and parameters alone: what uses it is judged
                continue
            scope = max(known, key=len)
        for name, shape, found in event["outputs"]:
            scope_of[name] = scope
            inside = scope.rpartition(".")[2] in FLOAT32_INSIDE
            if name in returned or inside or not mx.issubdtype(found, mx.floating) or dtype_name(found) == dtype:
                continue
            operands = tuple((dtype_name(kind), tuple(size)) for _, size, kind in inputs)
            left = scope_of.get(inputs[0][0], scope) if event["name"] == "Depends" else scope
            yield Violation(left, event["name"], operands, (dtype_name(found), tuple(shape)))


@contextmanager
def _scopes_marked(model: nn.Module) -> Iterator[list[str]]:
    """Make every module, and attention, mark what goes in and comes out with the scope that it is in.

    A mark is a dependency on an array of its own length, which survives into the trace: length n stands for the n-th
    scope of the list that is given.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    scopes, stack = [""], [""]

    def marked(values: Any, scope: str) -> Any:
        if not isinstance(values, mx.array):
            return values
        if scope not in scopes:
            scopes.append(scope)
        return mx.depends([values], [mx.zeros((scopes.index(scope) + 1,), mx.bool_)])[0]

    def within(scope: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        stack.append(scope)
        args = tuple(marked(value, scope) for value in args)
        result = function(*args, **{key: marked(value, scope) for key, value in kwargs.items()})
        stack.pop()
        return marked(result, stack[-1])

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            path = paths.get(id(self), stack[-1])
            scope = f"{path}.layer_norm" if isinstance(self, nn.LayerNorm) else path
            return within(scope, original.__get__(self), *args, **kwargs)

        return call

    attention = mx.fast.scaled_dot_product_attention
    originals: dict[Any, Any] = {kind: kind.__call__ for kind in {type(module) for module in model.modules()}}
    try:
        for kind, original in originals.items():
            kind.__call__ = wrapped(original)
        mx.fast.scaled_dot_product_attention = lambda *args, **kwargs: within(
            f"{stack[-1]}.attention", attention, *args, **kwargs
        )
        yield scopes
    finally:
        mx.fast.scaled_dot_product_attention = attention
        for kind, original in originals.items():
            kind.__call__ = original
