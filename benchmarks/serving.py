"""The server's throughput beside the library's, and 64 clients at once for a minute.

    python benchmarks/serving.py [--model mini] [--data DIR] [--clients 64] [--seconds 60] [--output serving.json]

The same as `mlx-rerank bench serving`. Prints two tables, and writes one JSON file.
"""

import sys

from mlx_rerank.cli import main

if __name__ == "__main__":
    sys.argv[:1] = ["mlx-rerank", "bench", "serving"]
    main()
