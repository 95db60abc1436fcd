"""Low-rank updates of the encoder's matrices: far fewer numbers to train, and none of their cost afterwards.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685).
"""

import math
from collections.abc import Iterable

import mlx.core as mx
import mlx.nn as nn

from mlx_rerank.models.family import module_at, replace_module
from mlx_rerank.models.layers import Linear


class LoRALinear(Linear):
    """A linear map whose matrix stays as it is, with a low-rank one added to it: W + scale B A."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float, key: mx.array) -> None:
        """Begin with an update of zero.

        Args:
            linear: the map, whose weight is [F, D].
            rank: of the update.
            scale: of the update.
            key: of the random numbers that A begins with.
        """
        nn.Module.__init__(self)
        outputs, inputs = linear.weight.shape
        self.weight = linear.weight
        if "bias" in linear:
            self.bias = linear.bias
        bound = 1 / math.sqrt(inputs)
        self.lora_a = mx.random.uniform(-bound, bound, (rank, inputs), key=key)
        self.lora_b = mx.zeros((outputs, rank), dtype=mx.float32)
        self._scale = scale

    def __call__(self, x: mx.array) -> mx.array:
        """Map [..., D] to [..., F]."""
        return self.some_outputs(x, slice(None))

    def some_outputs(self, x: mx.array, outputs: slice) -> mx.array:
        """Map [..., D] to a range of the outputs."""
        return super().some_outputs(x, outputs) + self._scale * ((x @ self.lora_a.T) @ self.lora_b[outputs].T)

    def added(self) -> mx.array:
        """Return scale B A, float32 [F, D]: added to W, it gives the weight of an equivalent plain linear map."""
        return self._scale * (self.lora_b.astype(mx.float32) @ self.lora_a.astype(mx.float32))


def add_lora(model: nn.Module, matrices: Iterable[str], rank: int, scale: float, seed: int) -> None:
    """Give matrices of a model a low-rank update.

    Args:
        model: which is changed.
        matrices: paths of the linear modules.
        rank: of the updates.
        scale: of the updates.
        seed: of the numbers that they begin with.
    """
    key = mx.random.key(seed)
    for path in matrices:
        key, own = mx.random.split(key)
        replace_module(model, path, LoRALinear(module_at(model, path), rank, scale, own))


def low_rank_updates(model: nn.Module) -> dict[str, mx.array]:
    """Return what is added to weights, by their name, float32."""
    modules = model.named_modules()
    return {f"{path}.weight": module.added() for path, module in modules if isinstance(module, LoRALinear)}
