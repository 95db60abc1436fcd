"""Have MLX compute on the CPU unless told otherwise: Python imports this at its start, where PYTHONPATH leads here."""

from contextlib import suppress

with suppress(ImportError):  # an environment without MLX
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
