"""The audit that a model stays in one dtype, for programs and for tests."""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rerank.dtypes.causes import Violation, find_causes
from mlx_rerank.dtypes.policy import FLOAT32_INSIDE, dtype_name
from mlx_rerank.dtypes.trace import trace

_WHOLE = (*FLOAT32_INSIDE, "dequantize")  # judged by what they return: how they compute it differs between devices


@dataclass(frozen=True)
class Report:
    """What the audit of a forward pass found.

    Args:
        operations: how many were judged.
        violations: those that lead out of the dtype, in the order in which they would run.
        float32_inside: how often each function of `FLOAT32_INSIDE` was called.
    """

    operations: int
    violations: tuple[Violation, ...]
    float32_inside: dict[str, int]


def report(model: nn.Module, dtype: mx.Dtype, *arguments: Any, **keywords: Any) -> Report:
    """Trace a forward pass and find every operation that leads out of a dtype.

    A cast of what the model returns is allowed, and so is what happens inside the functions of `FLOAT32_INSIDE`, but
    not what they return. Nothing is computed, and no weight is read. A second cause that lies after a first one is
    found only once the first is fixed. Parameters of another dtype are always found.

    Args:
        model: any module; its parameters are taken as they are.
        dtype: what every floating result should have.
        arguments: of the model's call, such as token ids and a mask; the values of arrays do not matter.
        keywords: the same by name.

    Raises:
        InputError: the model raised an error, as attention does for a float32 mask among float16 values.

    Source: `mlx_rerank.dtypes.trace`; tests/unit/dtypes/test_audit.py plants what it must find.
    """
    traced = trace(model, _WHOLE, arguments, keywords)
    operations, violations = find_causes(traced, dtype)
    names = [operation.name for operation in traced.operations]
    return Report(operations, tuple(violations), {name: names.count(name) for name in FLOAT32_INSIDE})


def audit(model: nn.Module, dtype: mx.Dtype, *arguments: Any, **keywords: Any) -> list[Violation]:
    """Return the operations that lead out of a dtype; arguments and errors are those of `report`."""
    return list(report(model, dtype, *arguments, **keywords).violations)


def assert_one_dtype(model: nn.Module, dtype: mx.Dtype, *arguments: Any, **keywords: Any) -> None:
    """Fail a test in which a model, any `mlx.nn.Module`, leaves a dtype.

        def test_my_model_stays_in_float16():
            model.set_dtype(mx.float16)
            assert_one_dtype(model, mx.float16, mx.zeros((2, 16), mx.int32))

    Args:
        model: its parameters are taken as they are, and none is read.
        dtype: what every floating result should have; the model may cast what it returns.
        arguments: of the model's call; the values of arrays do not matter.
        keywords: the same by name.

    Raises:
        AssertionError: the model leaves the dtype; the message has a line for every cause.
        InputError: the model raised an error.
    """
    found = audit(model, dtype, *arguments, **keywords)
    if found:
        lines = "\n".join(f"  {violation}" for violation in found)
        places = f"{len(found)} place{'s' * (len(found) > 1)}"
        raise AssertionError(f"{type(model).__name__} leaves {dtype_name(dtype)} in {places}:\n{lines}")
