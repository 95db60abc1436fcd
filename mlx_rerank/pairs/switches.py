"""Arguments that are on or off."""

from typing import Any

import numpy as np

from mlx_rerank.errors import InputError


def require_boolean(name: str, value: Any) -> bool:
    """Return an argument as a bool: numpy's is one, but no number is, and no text, of which nearly all would be true.

    Raises:
        InputError: it is not a boolean.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def optional_boolean(name: str, value: Any) -> bool | None:
    """Return an argument as a bool, or None where it is left to the callee.

    Raises:
        InputError: it is neither.
    """
    return None if value is None else require_boolean(name, value)
