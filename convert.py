"""Convert a Hugging Face reranker to MLX: `python convert.py` is `mlx-rerank convert`."""

import sys

from mlx_rerank.cli import main

if __name__ == "__main__":
    main(["convert", *sys.argv[1:]])
