"""Memory of each library with the model loaded, and of mlx-rerank over 1,000 shapes of batches.

    python benchmarks/memory.py [--model mini] [--data DIR] [--shapes 1000] [--output memory.json]

The same as `mlx-rerank bench memory`. Prints two tables, and writes one JSON file.
"""

import sys

from mlx_rerank.cli import main

if __name__ == "__main__":
    sys.argv[:1] = ["mlx-rerank", "bench", "memory"]
    main()
