"""Which operations of a trace lead out of a dtype, and how much follows from each."""

from collections import Counter
from dataclasses import dataclass

import mlx.core as mx

from mlx_rerank.dtypes.policy import dtype_name
from mlx_rerank.dtypes.trace import Operation, Trace, Value

_REARRANGING = (  # like casts and marks, they return what they were given
    *("AsType", "Mark", "AsStrided", "Broadcast", "Contiguous", "Copy", "ExpandDims", "Flatten", "Full", "Reshape"),
    *("Slice", "Split", "Squeeze", "StopGradient", "Transpose", "Unflatten"),
)


@dataclass(frozen=True)
class Operand:
    """An array that went into an operation or came out of it.

    Args:
        dtype: the name of its dtype, before any cast that MLX put in between.
        shape: its shape, before it was broadcast or rearranged.
        name: of the parameter, argument or constant that it is or is made of; empty where the model computed it.
    """

    dtype: str
    shape: tuple[int, ...]
    name: str = ""

    def __str__(self) -> str:
        """Return it as a report shows it."""
        return f"{self.dtype} {list(self.shape)} {self.name}".rstrip()


@dataclass
class Violation:
    """An operation that leads out of the dtype: nothing before it forced its result into another dtype.

    Args:
        path: the module it belongs to, such as ``layers.0.attention``.
        operation: MLX's name of it.
        operands: what it was given.
        result: what it returned.
        reason: what is wrong, such as ``layers.0.up_proj.bias is float32``.
        infected: how many later operations have results of another dtype because of it.
    """

    path: str
    operation: str
    operands: tuple[Operand, ...]
    result: Operand
    reason: str
    infected: int = 0

    def __str__(self) -> str:
        """Return it as a line of a report."""
        given = ", ".join(map(str, self.operands))
        return (
            f"{self.path or 'the model'}: {self.reason} in {self.operation}({given}) -> {self.result}; "
            f"{self.infected} more follow"
        )


@dataclass
class _Fault:
    """Why an array has another dtype.

    Args:
        kind: it was "given", as a parameter or an argument; or "made" of constants and parameters alone; or "cast", as
            MLX does before any operation on mixed dtypes; or it is the "result" of another operation.
        cause: what is reported for it.
        cast: what would be reported, should the cast turn out to be the model's own.
    """

    kind: str
    cause: Violation | None = None
    cast: Violation | None = None


@dataclass(frozen=True)
class _Known:
    """What is known of an array: what it was before casts, why it is off, and its module.

    The module is None where an array is made of constants and parameters alone: only what uses it is judged.
    """

    seen: Operand
    fault: _Fault | None
    path: str | None


def find_causes(trace: Trace, dtype: mx.Dtype) -> tuple[int, list[Violation]]:
    """Return how many operations work on what the model was called with, and those that lead out of a dtype."""
    judge = _Judge(trace, dtype)
    for operation in trace.operations:
        judge.follow(operation)
    return judge.operations, judge.causes


class _Judge:
    """Follows arrays through a trace."""

    def __init__(self, trace: Trace, dtype: mx.Dtype) -> None:
        """Start with what is given: parameters, arguments and constants."""
        self.causes: list[Violation] = []
        self.operations = 0
        self._dtype = dtype
        self._exempt = _cast_on_return(trace)
        self._known: dict[str, _Known] = {}
        arguments = {f"argument {i}": value for i, value in enumerate(trace.arguments)}
        for name, value in {**arguments, **trace.parameters}.items():
            self._start(value, name, "given")
        for key, constant in trace.constants.items():
            name = f"constant {constant.item():g}" if constant.size == 1 else "constant"
            self._start(Value(key, constant.shape, constant.dtype), name, "made")

    def follow(self, operation: Operation) -> None:
        """Judge an operation whose inputs are all known."""
        inputs = [self._known[value.key] for value in operation.inputs]
        paths = [known.path for known in inputs if known.path is not None]
        path = operation.path if operation.path is not None else max(paths, key=len, default=None)
        self.operations += path is not None and operation.name != "Mark"
        off = [value for value in operation.outputs if self._is_off(value)]
        if path is not None and (operation.name == "Mark" or not off):
            for known in inputs:  # MLX's own casts go straight into an operation on mixed dtypes
                self._report_cast(known.fault, path)
        fault = self._fault(operation, inputs, off[0], path) if off else None
        for value in operation.outputs:
            seen = _seen(operation, inputs, value, value in off, path)
            self._known[value.key] = _Known(seen, fault if value in off else None, path)

    def _start(self, value: Value, name: str, kind: str) -> None:
        """Enter an array that no operation makes."""
        self._known[value.key] = _Known(_operand(value, name), _Fault(kind) if self._is_off(value) else None, None)

    def _is_off(self, value: Value) -> bool:
        """Tell whether an array is floating, of another dtype, and not meant to be."""
        return mx.issubdtype(value.dtype, mx.floating) and value.dtype != self._dtype and value.key not in self._exempt

    def _fault(self, operation: Operation, inputs: list[_Known], result: Value, path: str | None) -> _Fault:
        """Return why a result is off, and report the operation if it is the cause."""
        faults = [known.fault for known in inputs if known.fault]
        if operation.name in _REARRANGING and faults:
            if faults[0].cause:
                faults[0].cause.infected += path is not None and operation.name != "Mark"
            return faults[0]
        if operation.name == "AsType":
            seen = inputs[0].seen
            cast = Violation(path or "", "AsType", (seen,), _operand(result), _turned(seen, result))
            return _Fault("cast", cast=cast)
        given = [fault for fault in faults if fault.kind == "given" and not fault.cause]
        if path is None:
            return next((fault for fault in faults if fault.kind == "given"), _Fault("made"))
        if not given:
            if len({id(fault) for fault in faults}) == 1:  # mixed with nothing, so that the model itself cast it
                self._report_cast(faults[0], path)
            caused = next((fault.cause for fault in faults if fault.cause), None)
            if caused:
                caused.infected += 1
                return _Fault("result", caused)
        violation = Violation(
            path, operation.name, tuple(known.seen for known in inputs), _operand(result), _reason(inputs, result)
        )
        return _Fault("result", self._report(violation, [fault for fault in faults if fault.kind != "made"]))

    def _report_cast(self, fault: _Fault | None, path: str) -> None:
        """Report a cast that nothing but the model asked for, unless it is part of a cause already."""
        if fault and fault.cast and not fault.cause:
            fault.cast.path = fault.cast.path or path
            self._report(fault.cast, [fault])

    def _report(self, violation: Violation, faults: list[_Fault]) -> Violation:
        """Report a violation, and make it the cause of what led to it."""
        self.causes.append(violation)
        for fault in faults:
            fault.cause = fault.cause or violation
        return violation


def _reason(inputs: list[_Known], result: Value) -> str:
    """Say what is wrong with an operation's operands, the most telling first."""
    told = {"given": [], "int": [], "made": [], "cast": []}
    for known in inputs:
        if known.fault and not known.fault.cause:
            kind, seen = known.fault.kind, known.seen
            kind = "int" if kind == "cast" and "float" not in seen.dtype else kind
            told[kind].append(_turned(seen, result) if kind in ("int", "cast") else f"{seen.name} is {seen.dtype}")
    return next((reasons[0] for reasons in told.values() if reasons), f"{dtype_name(result.dtype)} arises")


def _turned(operand: Operand, result: Value) -> str:
    """Say what happened to an operand that was cast."""
    return f"{operand.dtype} {operand.name}".rstrip() + f" becomes {dtype_name(result.dtype)}"


def _seen(operation: Operation, inputs: list[_Known], value: Value, off: bool, path: str | None) -> Operand:
    """Return a result as a report shows it when it is an operand: as it was before casts and broadcasts."""
    if operation.name in _REARRANGING:
        before = inputs[0].seen
        dtype = before.dtype if off or operation.name != "AsType" else dtype_name(value.dtype)
        shape = before.shape if operation.name in ("AsType", "Broadcast", "Mark") else value.shape
        return Operand(dtype, tuple(shape), before.name)
    name = f"{operation.name}({', '.join(known.seen.name for known in inputs)})" if path is None else ""
    return _operand(value, name)


def _operand(value: Value, name: str = "") -> Operand:
    """Return an array as a report shows it."""
    return Operand(dtype_name(value.dtype), tuple(value.shape), name)


def _cast_on_return(trace: Trace) -> frozenset[str]:
    """Return the keys of arrays that only cast the model's last result, to return it, or compute it in float32."""
    made_by = {value.key: operation for operation in trace.operations for value in operation.outputs}
    uses = Counter(value.key for operation in trace.operations for value in operation.inputs)
    exempt: set[str] = set()
    for returned in trace.returned:
        key, chain = returned, [returned]
        while (
            uses[key] == (key != returned)
            and key in made_by
            and made_by[key].name in (*_REARRANGING, "Gather", "score")
        ):
            if made_by[key].name in ("AsType", "score"):  # the latter's result is the logit
                exempt.update(chain)
                break
            key = made_by[key].inputs[0].key
            chain.append(key)
    return frozenset(exempt)
