"""Modules that several families share, over operations in the form that suits the device."""

import mlx.core as mx
import mlx.nn as nn

from mlx_rerank.device import operations


class Model(nn.Module):
    """What every family builds: layers, a head, and a call that maps a batch to logits; see `Family.build`."""

    layers: list[nn.Module]
    head: nn.Module


def look_up(table: nn.Embedding | nn.QuantizedEmbedding, ids: mx.array, dtype: mx.Dtype) -> mx.array:
    """Return the rows of a table, packed ones unpacked to the dtype.

    MLX's own lookup returns bfloat16 where a table is packed in a mode whose scales are no floats.
    """
    if isinstance(table, nn.Embedding):
        return table(ids)
    biases = table.biases[ids] if table.biases is not None else None
    packing = {"group_size": table.group_size, "bits": table.bits, "mode": table.mode}
    return mx.dequantize(table.weight[ids], table.scales[ids], biases, **packing, dtype=dtype)


def some_outputs(linear: "Linear | nn.QuantizedLinear", x: mx.array, outputs: slice) -> mx.array:
    """Return a range of the outputs of a linear module, packed or not, for x [..., D]; the rest is not computed."""
    if isinstance(linear, Linear):
        return linear.some_outputs(x, outputs)
    biases = linear.biases[outputs] if linear.biases is not None else None
    packing = {"group_size": linear.group_size, "bits": linear.bits, "mode": linear.mode}
    weight, scales = linear.weight[outputs], linear.scales[outputs]
    product = mx.quantized_matmul(x, weight, scales, biases, transpose=True, **packing)
    return product + linear.bias[outputs] if "bias" in linear else product


class Linear(nn.Linear):
    """A linear map, with a bias or without."""

    def __call__(self, x: mx.array) -> mx.array:
        """Map [..., D] to [..., F]."""
        return operations.linear(x, self.weight, self.get("bias"))

    def some_outputs(self, x: mx.array, outputs: slice) -> mx.array:
        """Map [..., D] to a range of the outputs."""
        bias = self.bias[outputs] if "bias" in self else None
        return operations.linear(x, self.weight[outputs], bias)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation with a weight, and with a bias or without."""

    def __call__(self, x: mx.array) -> mx.array:
        """Map [..., D] to [..., D]."""
        return operations.layer_norm(x, self.weight, self.get("bias"), self.eps)


class RMSNorm(nn.RMSNorm):
    """Normalisation by the root of the mean square, with a weight."""

    def __call__(self, x: mx.array) -> mx.array:
        """Map [..., D] to [..., D]."""
        return operations.rms_norm(x, self.weight, self.eps)
