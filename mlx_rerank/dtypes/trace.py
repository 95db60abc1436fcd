"""What a forward pass computes: every operation with the module it belongs to, found without computing anything."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from mlx_rerank.device import causal, disentangled, operations
from mlx_rerank.dtypes.patching import Patch, patched
from mlx_rerank.errors import InputError, RerankError

_OWNERS = (mx.fast, mx, operations, causal, disentangled)  # of functions that count as one operation


@dataclass(frozen=True)
class Value:
    """An array of a trace, known by the name that MLX gave it.

    Args:
        key: that name.
        shape: its shape.
        dtype: its dtype.
    """

    key: str
    shape: tuple[int, ...]
    dtype: mx.Dtype


@dataclass(frozen=True)
class Operation:
    """A step of a trace.

    Args:
        name: MLX's name of it; "Mark" where a value goes into a module, or out of one, and nothing is computed.
        inputs: its operands.
        outputs: its results.
        path: the module that a Mark leads to, or that a whole function was called in; None where only the operands
            tell.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    path: str | None = None


@dataclass(frozen=True)
class Trace:
    """A forward pass.

    Args:
        operations: in an order in which they can be computed.
        parameters: the model's parameters, by name.
        arguments: the arrays that the model was called with.
        constants: arrays that are neither, by key.
        returned: keys of what the model returned.
    """

    operations: Sequence[Operation]
    parameters: Mapping[str, Value]
    arguments: Sequence[Value]
    constants: Mapping[str, mx.array]
    returned: frozenset[str]


def trace(model: nn.Module, whole: Iterable[str], arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Trace:
    """Trace a forward pass. Nothing is computed and no parameter is read.

    For a moment it wraps classes of modules and functions of MLX, with no effect on other threads.

    Args:
        model: whose parameters are taken as they are.
        whole: functions of `mlx.core`, `mlx.core.fast` or `mlx_rerank.device.operations` that count as one operation,
            however they are computed.
        arguments: of the model's call; the values of arrays do not matter.
        keywords: the same by name.

    Raises:
        InputError: the model raised an error; the message says in which module.

    Source: `mlx.core.export_function` with a callback, MLX 0.32; tests/unit/dtypes/test_dtypes.py.
    """
    events: list[dict[str, Any]] = []
    parameters: Any = model.parameters()

    def forward(*inputs: mx.array, **placeholders: mx.array) -> list[mx.array]:
        model.update(tree_unflatten(list(placeholders.items())))
        values = iter(inputs)
        args, kwargs = _map_arrays(lambda _: next(values), (tuple(arguments), dict(keywords)))
        return _arrays(model(*args, **kwargs))

    given = _arrays((tuple(arguments), dict(keywords)))
    calls = _Calls({id(module): path for path, module in model.named_modules()})
    with patched(calls.patches({type(module) for module in model.modules()}, whole)):
        try:
            mx.export_function(events.append, forward, *given, **dict(tree_flatten(parameters)))
        except RerankError:
            raise
        except Exception as error:  # a model may raise anything, and what matters is where
            raised, place = calls.raised
            place = (place if raised is error else "") or "the model"
            raise InputError(f"{place} cannot be traced: {type(error).__name__}: {error}") from error
        finally:
            model.update(parameters)
    return _read(events, calls.made)


class _Calls:
    """The calls of modules and of whole functions in a forward pass, numbered.

    A value carries the number of the call that it went into, or came back to, as a mark: a dependency on a constant,
    which survives into the trace.
    """

    def __init__(self, paths: Mapping[int, str]) -> None:
        """Start outside all calls, with the path of every module by its id."""
        self.made: list[tuple[str, str]] = [("", "")]  # path, and the function's name where it is one
        self.raised: tuple[Exception | None, str] = None, ""  # the last error, and the innermost call it came from
        self._paths = paths
        self._open = [0]  # numbers of the calls that have not returned

    def patches(self, kinds: Iterable[type], whole: Iterable[str]) -> list[Patch]:
        """Return patches that record calls of these modules and functions; functions hide the operations inside."""
        owners = {f: next(owner for owner in _OWNERS if hasattr(owner, f)) for f in whole}
        functions = [(owner, f, partial(self._of_function, f)) for f, owner in owners.items()]
        return [*((kind, "__call__", self._of_module) for kind in kinds), *functions]

    def _of_module(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a module's call."""

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            with self._entered(self._paths.get(id(module)), ""):
                args, kwargs = self._marked((args, kwargs))
                result = original(module, *args, **kwargs)
            return self._marked(result)

        return call

    def _of_function(self, name: str, original: Callable[..., mx.array]) -> Callable[..., mx.array]:
        """Wrap a function, whose result is traced as an array of its shape and dtype that depends on the operands."""

        def call(*args: Any, **kwargs: Any) -> mx.array:
            with self._entered(None, name) as number:
                result = original(*args, **kwargs)
            operands = [*_arrays((args, kwargs)), mx.array(number)]
            return mx.depends([mx.zeros(result.shape, result.dtype)], operands)[0]

        return call

    @contextmanager
    def _entered(self, path: str | None, function: str) -> Iterator[int]:
        """Open a call and give its number; its module is the innermost call's unless a path is given."""
        self.made.append((self.made[self._open[-1]][0] if path is None else path, function))
        self._open.append(len(self.made) - 1)
        try:
            yield self._open[-1]
        except Exception as error:
            if error is not self.raised[0]:
                self.raised = error, ".".join(part for part in self.made[self._open[-1]] if part)
            raise
        finally:
            self._open.pop()

    def _marked(self, values: Any) -> Any:
        """Mark arrays with the innermost call."""
        return _map_arrays(lambda value: mx.depends([value], [mx.array(self._open[-1])])[0], values)


def _read(events: Sequence[Mapping[str, Any]], calls: Sequence[tuple[str, str]]) -> Trace:
    """Turn MLX's account of a trace into a Trace, reading the marks."""
    found = {event["type"]: event for event in events}
    constants = dict(found["constants"]["constants"])
    operations = []
    for event in events:
        if event["type"] != "primitive":
            continue
        inputs, outputs = (tuple(Value(*value) for value in event[side]) for side in ("inputs", "outputs"))
        name, path = event["name"], None
        if name == "Depends":
            path, function = calls[int(constants[inputs[-1].key].item())]
            name, inputs = function or "Mark", inputs[1:-1] if function else inputs[:1]
        operations.append(Operation(name, inputs, outputs, path))
    values = {value[0]: Value(*value) for value in found["inputs"]["inputs"]}
    parameters = {name: values.pop(key) for name, key in found["keyword_inputs"]["keywords"]}
    returned = frozenset(key for key, *_ in found["outputs"]["outputs"])
    return Trace(operations, parameters, list(values.values()), constants, returned)


def _map_arrays(function: Callable[[mx.array], Any], tree: Any) -> Any:
    """Replace the arrays in lists, tuples and dicts, and leave all else as it is."""
    return tree_map(
        lambda leaf: function(leaf) if isinstance(leaf, mx.array) else leaf,
        tree,
        is_leaf=lambda node: isinstance(node, nn.Module),  # it is a dict, too
    )


def _arrays(tree: Any) -> list[mx.array]:
    """Return the arrays in lists, tuples and dicts."""
    found: list[mx.array] = []
    _map_arrays(found.append, tree)
    return found
