"""The machine: its BLAS, its memory, the one thread that talks to MLX, and operations in the form that suits it.

Nothing is imported here: the BLAS must be loaded before MLX.
"""
