"""Speed beside other libraries, on the same weights and texts, in one run.

    python benchmarks/speed.py [--model mini] [--data DIR] [--rounds 3] [--threads N] [--output speed.json]

The same as `mlx-rerank bench speed`. Peers that are installed take part
(pip install "mlx-rerank[benchmark]"). Prints a table for each workload, and writes one JSON file.
"""

import sys

from mlx_rerank.cli import main

if __name__ == "__main__":
    sys.argv[:1] = ["mlx-rerank", "bench", "speed"]
    main()
