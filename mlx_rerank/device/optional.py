"""What an extra of this package brings: imported when it is used, or refused with the command that installs it."""

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from mlx_rerank.device import blas
from mlx_rerank.errors import MissingDependencyError


def imported(name: str, extra: str | None = "reference") -> Any:
    """Import a module that an extra brings; torch keeps a BLAS of its own.

    Args:
        name: of the module, such as "torch".
        extra: of this package, that installs it; None if no extra does, and its own name does.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return blas.import_with_own(name)
    except ImportError as error:
        raise MissingDependencyError(f"this needs {name}, which is not installed: {_remedy(name, extra)}") from error


def require(name: str, extra: str, purpose: str) -> None:
    """Check that a module is installed, without importing it, before anything that takes long.

    Args:
        name: of the module.
        extra: of this package, that installs it.
        purpose: what it is for, as the beginning of a sentence.

    Raises:
        MissingDependencyError: it is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise MissingDependencyError(f"{purpose} {name}: {_remedy(name, extra)}")


def require_at_least(name: str, least: str, purpose: str) -> None:
    """Check the version of an installed package where an older one would do harm.

    Args:
        name: of the package.
        least: version, such as "2.10".
        purpose: what is not done with an older one, and why.

    Raises:
        MissingDependencyError: it is older.
    """
    found = version(name)
    if _numbers(found) < _numbers(least):
        raise MissingDependencyError(f"{purpose}: {name} is {found}; pip install '{name}>={least}'")


def _numbers(release: str) -> list[int]:
    """Return the first two numbers of a version."""
    return [int(number) for number in re.findall(r"\d+", release)[:2]]


@contextmanager
def framework(name: str, extra: str | None = None) -> Iterator[None]:
    """Wrap the imports of a framework.

    Args:
        name: what the framework is called.
        extra: of this package, that installs it; None if every install does.

    Raises:
        MissingDependencyError: it cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(f"{name} cannot be imported ({error}): {_remedy('mlx-rerank', extra)}") from error


def _remedy(package: str, extra: str | None) -> str:
    """Return the command that installs an extra, or a package."""
    return f"pip install 'mlx-rerank[{extra}]'" if extra else f"pip install {package}"
