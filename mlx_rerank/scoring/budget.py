"""How many padded tokens are computed at once, where the caller does not say."""

import mlx.core as mx

from mlx_rerank.device.memory import installed
from mlx_rerank.models.cost import Cost

# An evaluation cannot be interrupted: until it ends, no other caller gets its turn, and a cancelled caller cannot drop
# its work. An operating system may kill a part of it that keeps the screen's GPU for seconds. These are half a second's
# to a second's work, and enough to keep a device busy; by the last letter of a GPU's architecture. Not measured.
_OPERATIONS = {"g": 2e12, "s": 4e12, "d": 8e12}  # Apple's base and Pro, Max, Ultra
_ELSE_OPERATIONS = 4e12
# MLX hands a GPU up to 11 command buffers at a time, each of which ends when its arrays have so many numbers; what they
# use is freed when they are done. From MLX 0.32's mlx/transforms.cpp and mlx/backend/metal/device.cpp.
_COMMAND_BUFFERS, _NUMBERS, _NUMBERS_OF_LARGE = 11, 40 << 20, 50 << 20
_MEMORY_SHARE = 1 / 8  # of the machine's memory, for what a model needs beside its weights
_SMALLEST, _LARGEST = 512, 16384  # below, too little to fill a device; above, nothing is gained any more
_ON_CPU = 512  # one such batch runs on each core: temporaries that outgrow the caches cost more than they gain


def default_token_budget(cost: Cost, device: mx.Device, dtype: mx.Dtype, max_length: int) -> int:
    """Return a budget that keeps one evaluation short, and its temporaries a small part of the memory.

    Args:
        cost: of a token.
        device: that it runs on.
        dtype: that it computes in.
        max_length: tokens of the longest pair.

    Returns:
        Padded tokens of a batch, a power of two between 512 and 16,384.
    """
    if device == mx.cpu:
        return _ON_CPU
    size = str(mx.device_info().get("architecture", ""))[-1:]
    most, room = _OPERATIONS.get(size, _ELSE_OPERATIONS), _MEMORY_SHARE * installed()
    ahead = _COMMAND_BUFFERS * (_NUMBERS_OF_LARGE if size in ("s", "d") else _NUMBERS) * dtype.size
    tokens = _LARGEST
    while tokens > _SMALLEST and (
        tokens * cost.operations(max_length) > most or _temporaries(cost, tokens, max_length, dtype, ahead) > room
    ):
        tokens //= 2
    return tokens


def _temporaries(cost: Cost, tokens: int, max_length: int, dtype: mx.Dtype, ahead: int) -> int:
    """Return the bytes that a batch holds at most: one layer's, or those of the layers that are under way."""
    of_layer = tokens * cost.bytes(max_length, dtype.size)
    return max(of_layer, min(ahead, cost.shape.num_hidden_layers * of_layer))
