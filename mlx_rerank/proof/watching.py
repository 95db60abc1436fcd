"""What flows through a model: a look at the inputs and results of all its modules while it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rerank.dtypes.patching import patched

Look = Callable[[str, mx.array], None]  # module path ("" for the model itself) and a floating array


@contextmanager
def watched(model: nn.Module, *, result: Look, given: Look | None = None) -> Iterator[None]:
    """Show every floating array that a module of the model is given or returns, while the context lasts.

    Args:
        model: whose modules are watched.
        result: is shown what a module returns.
        given: is shown what a module is given.
    """
    paths = {id(module): path for path, module in model.named_modules()}

    def show(look: Look | None, path: str, value: Any) -> None:
        if look and isinstance(value, mx.array) and mx.issubdtype(value.dtype, mx.floating):
            look(path, value)

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            path = paths.get(id(self))
            if path is None:
                return original(self, *args, **kwargs)
            for value in (*args, *kwargs.values()):
                show(given, path, value)
            value = original(self, *args, **kwargs)
            show(result, path, value)
            return value

        return call

    with patched([(kind, "__call__", wrapped) for kind in {type(module) for module in model.modules()}]):
        yield
