"""How near a run comes to what matrix products and memory of this machine allow.

    python benchmarks/roofline.py [--model mini] [--data DIR] [--tflops X --bandwidth Y] [--output roofline.json]

The same as `mlx-rerank bench roofline`. With the figures of another chip it also predicts a bound for that.
Prints its tables, and writes one JSON file.
"""

import sys

from mlx_rerank.cli import main

if __name__ == "__main__":
    sys.argv[:1] = ["mlx-rerank", "bench", "roofline"]
    main()
