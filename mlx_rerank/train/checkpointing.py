"""Gradient checkpointing: an encoder layer whose activations are computed again in the backward pass instead of kept.

Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174).
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rerank.models.layers import Model


def checkpoint_layers(model: Model) -> None:
    """Have every layer of a model compute its activations again instead of keeping them.

    Args:
        model: with `layers`, each called with the hidden states first.
    """
    kinds = {type(layer): _checkpointed(type(layer)) for layer in model.layers}
    for layer in model.layers:
        layer.__class__ = kinds[type(layer)]  # a module around it would rename its parameters


def _checkpointed(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a class of layers like `kind` that keep only their input for the backward pass."""

    class Checkpointed(kind):
        def __call__(self, x: mx.array, *args: Any, **keywords: Any) -> mx.array:
            parameters = self.trainable_parameters()

            def forward(parameters: Any, x: mx.array) -> mx.array:
                self.update(parameters)
                return super(Checkpointed, self).__call__(x, *args, **keywords)

            result = mx.checkpoint(forward)(parameters, x)
            self.update(parameters)  # `forward` left parameters of its own trace, which the next batch cannot use
            return result

    return Checkpointed
