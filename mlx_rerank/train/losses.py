"""What training minimises, over the logits of a step's groups.

Every loss is a sum that the caller divides by a count of the whole step, so that a step taken in parts has the same
gradient as one taken whole.

Sources: listwise softmax: Cao et al. 2007 (ListNet); binary cross-entropy: Nogueira and Cho 2019; distillation: Hinton
et al. 2015; margin-MSE: Hofstätter et al. 2020 (arXiv 2010.02666).
"""

from dataclasses import dataclass

import mlx.core as mx

_HIDDEN = -1e30  # logit of a place without a document


@dataclass(frozen=True)
class Targets:
    """What the logits of groups are to become. G groups, S documents of the largest one.

    Args:
        shown: bool [G, S], True where there is a document.
        labels: float32 [G, S], relevance from 0 to 1; 0 where there is no document.
        teacher: float32 [G, S], a teacher's scores; None where there is none.
    """

    shown: mx.array
    labels: mx.array
    teacher: mx.array | None = None


def listwise(logits: mx.array, targets: Targets) -> mx.array:
    """Return the cross-entropy between a group's logits and its labels as a distribution, summed over groups.

    Args:
        logits: float32 [G, S].
        targets: groups without a positive label do not count.
    """
    total = targets.labels.sum(axis=1, keepdims=True)
    return _cross_entropy(logits, targets.labels / mx.maximum(total, 1e-9), targets.shown)


def binary(logits: mx.array, targets: Targets) -> mx.array:
    """Return the binary cross-entropy between each logit and its label, summed over documents."""
    each = mx.logaddexp(mx.zeros_like(logits), logits) - targets.labels * logits
    return mx.where(targets.shown, each, 0.0).sum()


def distillation(logits: mx.array, targets: Targets, temperature: float) -> mx.array:
    """Return the cross-entropy between a group's logits and its teacher's scores, both softened, summed over groups."""
    assert targets.teacher is not None
    scores = mx.where(targets.shown, targets.teacher / temperature, _HIDDEN)
    return _cross_entropy(logits / temperature, mx.softmax(scores, axis=1), targets.shown)


def margin_mse(logits: mx.array, targets: Targets) -> mx.array:
    """Return the squared error of each document's margin below its group's first, summed over all but the first.

    Args:
        logits: float32 [G, S].
        targets: with the teacher's scores; the first of each group is a positive document.
    """
    assert targets.teacher is not None
    error = (logits[:, :1] - logits) - (targets.teacher[:, :1] - targets.teacher)
    return mx.where(targets.shown, mx.square(error), 0.0).sum()


def _cross_entropy(logits: mx.array, distribution: mx.array, shown: mx.array) -> mx.array:
    """Return the cross-entropy of groups, summed."""
    logits = mx.where(shown, logits, _HIDDEN)
    logs = logits - mx.logsumexp(logits, axis=1, keepdims=True)
    return -mx.where(shown, distribution * logs, 0.0).sum()
