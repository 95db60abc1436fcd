"""From logits to scores, by whatever function a caller or a checkpoint names."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from mlx_rerank.compat.warning import warn
from mlx_rerank.device.optional import imported
from mlx_rerank.errors import InputError
from mlx_rerank.models.mapping import sigmoid

Activation = Callable[[Any], Any]


def identity(logits: np.ndarray) -> np.ndarray:
    """Return logits as they are."""
    return logits


_OWN = {"Identity": identity, "Sigmoid": sigmoid}  # by torch's names


def activation_named(path: str | None) -> Activation:
    """Return the activation that a checkpoint names, without torch; the sigmoid where it names none.

    Args:
        path: of a class, such as "torch.nn.modules.linear.Identity".

    Raises:
        InputError: it is another one of torch's.
    """
    if path is None:
        return sigmoid
    if not path.startswith("torch."):
        warn(f"the checkpoint's activation {path} is code that is not run: using the sigmoid, or pass activation_fn")
        return sigmoid
    name = path.rpartition(".")[2]
    if name not in _OWN:
        raise InputError(f"the checkpoint's activation {path} is not built in: pass activation_fn={path}()")
    return _OWN[name]


def activated(activation: Activation | None, logits: np.ndarray) -> np.ndarray:
    """Return what an activation makes of logits.

    Args:
        activation: is given a float32 array [N, 1], and, if it fails, a tensor of this shape, which is what
            sentence-transformers would give it. None leaves logits as they are.
        logits: float32 [N].

    Returns:
        float32 [N].

    Raises:
        InputError: it cannot be called, or does not give one score for each logit.
        Exception: whatever it raises.
    """
    if activation is not None and not callable(activation):
        raise InputError(f"activation_fn must be a function of logits, or None, not {activation!r}")
    if activation is None or not len(logits):
        return logits
    column = logits[:, np.newaxis]
    try:
        scores = activation(column.copy())
    except Exception:  # torch's functions have many ways to refuse an array
        if sys.modules.get("torch") is None:  # then it is none of torch's
            raise
        scores = activation(tensor_of(column.copy()))
    scores = np.asarray(scores.detach() if hasattr(scores, "detach") else scores, dtype=np.float32)
    if scores.squeeze().shape != logits.squeeze().shape:  # of one logit it may be a number
        raise InputError(
            f"activation_fn made shape {scores.shape} of {column.shape}: it must give one score for each logit"
        )
    return scores.reshape(-1)


def tensor_of(array: np.ndarray) -> Any:
    """Return an array as a torch tensor on the CPU that shares its memory, for callers that work with torch.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    return imported("torch").from_numpy(array)
