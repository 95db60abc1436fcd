"""What a caller is told of arguments that are old, or without effect."""

import functools
import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mlx_rerank.errors import printable

Method = TypeVar("Method", bound=Callable[..., Any])
logger = logging.getLogger("mlx_rerank")
_HERE = str(Path(__file__).parent)


def old_names(**names: str | None) -> Callable[[Method], Method]:
    """Let a method take the keywords of earlier versions of sentence-transformers, as its last version does.

    Args:
        names: what each is called now; None if it no longer has an effect, which a warning then says.
    """

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            where = method.__qualname__.removesuffix(".__init__")
            warn_unused(where, {old: True for old, new in names.items() if old in kwargs and new is None})
            for old in [name for name in names if name in kwargs]:
                what = f"was renamed and is now deprecated: use `{names[old]}`" if names[old] else "is deprecated"
                log_once(f"{where}: the `{old}` argument {what}")
            given = {old: kwargs.pop(old) for old in names if old in kwargs}
            renamed = {new: given[old] for old, new in names.items() if old in given and new is not None}
            return method(*args, **renamed | kwargs)

        return call  # pyright: ignore[reportReturnType]

    return decorate


@functools.cache
def log_once(message: str) -> None:
    """Log a warning, as sentence-transformers does of old names: once in a process."""
    logger.warning(message)


def warn_unused(where: str, given: Mapping[str, Any]) -> None:
    """Name the arguments without effect that were given."""
    names = sorted(name for name, value in given.items() if value is not None and value is not False)
    if names:
        warn(f"{where} does not use {', '.join(names)}")


def warn(message: str) -> None:
    """Warn at the line that called into this package."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_code.co_filename.startswith(_HERE):
        level, frame = level + 1, frame.f_back
    warnings.warn(f"mlx-rerank: {printable(message)}", UserWarning, stacklevel=level)
