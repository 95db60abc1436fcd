"""`python -m mlx_rerank` is the `mlx-rerank` command."""

from mlx_rerank.cli import main

if __name__ == "__main__":
    main()
