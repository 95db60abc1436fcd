"""Gradient checkpointing: an encoder layer whose activations are computed again in the backward pass instead of kept.

Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174).
"""

from typing import Any

import mlx.core as mx

from mlx_rerank.models.xlm_roberta import CrossEncoder, Layer


class CheckpointedLayer(Layer):
    """An encoder layer of which only the input is kept for the backward pass."""

    def __call__(self, x: mx.array, mask: mx.array | None, *, first_token_only: bool = False) -> mx.array:
        """Map as `Layer` does."""
        parameters = self.trainable_parameters()

        def forward(parameters: Any, x: mx.array) -> mx.array:
            self.update(parameters)
            return super(CheckpointedLayer, self).__call__(x, mask, first_token_only=first_token_only)

        result = mx.checkpoint(forward)(parameters, x)
        self.update(parameters)  # those that `forward` has left are of its own trace, and of no use to the next batch
        return result


def checkpoint_layers(model: CrossEncoder) -> None:
    """Have every layer of a model compute its activations again instead of keeping them."""
    for layer in model.layers:
        layer.__class__ = CheckpointedLayer  # a module around it would rename its parameters
