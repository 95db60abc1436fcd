"""How many padded tokens are computed at once, where the caller does not say."""

import os

import mlx.core as mx

from mlx_rerank.models.cost import Cost

# An evaluation cannot be interrupted: until it ends, no other caller gets its turn, and a cancelled caller cannot drop
# its work. An operating system may kill an evaluation that keeps the screen's GPU for seconds. This is a second's work
# for a device of 4 TFLOP/s, and enough to keep one busy.
_OPERATIONS = 4e12
_MEMORY_SHARE = 1 / 8  # of the machine's memory, for what a model needs beside its weights
_IN_FLIGHT = 2  # batches whose temporaries may exist at once: see DeviceThread.submit_split
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
        Padded tokens of a batch, between 512 and 16,384.
    """
    if device == mx.cpu:
        return _ON_CPU
    fitting = _MEMORY_SHARE * _memory() / (_IN_FLIGHT * cost.bytes(max_length, dtype.size))
    return _power_of_two(min(fitting, _OPERATIONS / cost.operations(max_length)))


def _power_of_two(tokens: float) -> int:
    """Round down to a power of two, within the limits."""
    return min(max(1 << int(tokens).bit_length() >> 1, _SMALLEST), _LARGEST)


def _memory() -> int:
    """Return the bytes of the machine's memory, which on Apple Silicon is the GPU's too."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
