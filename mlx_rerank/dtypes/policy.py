"""Which dtypes a model may run in, and which it runs in by default."""

import mlx.core as mx

from mlx_rerank.errors import InputError

NAMES = ("float16", "bfloat16", "float32")

FLOAT32_INSIDE = {
    "attention": "softmax and its products are accumulated in float32",
    "causal_attention": "softmax and its products are accumulated in float32",
    "disentangled_attention": "softmax is accumulated in float32",
    "gelu": "its steps are computed in float32, and its result rounded once",
    "layer_norm": "mean and variance of a row are accumulated in float32",
    "rms_norm": "the mean square of a row is accumulated in float32",
    "rope": "angles are computed in float32",
    "scaled_dot_product_attention": "softmax and its products are accumulated in float32",
    "score": "the last product is computed in float32, and is the logit",
    "swiglu": "its steps are computed in float32, and its result rounded once",
}
"""Functions of `mlx.core.fast`, and of `mlx_rerank.device.operations`, that may compute in float32 inside, and why."""


def parse_dtype(name: str) -> mx.Dtype:
    """Return the MLX dtype called `name`.

    Raises:
        InputError: it is none of `NAMES`.
    """
    if name not in NAMES:
        raise InputError(f"dtype {name!r} is not one of {', '.join(NAMES)}")
    return getattr(mx, name)


def dtype_name(dtype: mx.Dtype) -> str:
    """Return the plain name of an MLX dtype, such as float16."""
    return str(dtype).rpartition(".")[2]


def default_dtype(device: mx.Device) -> mx.Dtype:
    """Return float16 for a GPU and float32 for a CPU, where half precision is slower and saves nothing."""
    return mx.float16 if device == mx.gpu else mx.float32
