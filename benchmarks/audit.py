"""How long the audit of a large model takes, and how much memory.

    python benchmarks/audit.py [--rounds 5]

The model has the shape of BAAI/bge-reranker-v2-m3, 24 layers of 1,024 over 250,002 words, and weights that are never
made. A round is one dtype, with a padded batch. Prints medians with the fastest and slowest.
"""

import argparse
import statistics
import time

import mlx.core as mx

from mlx_rerank.dtypes import NAMES, parse_dtype, report
from mlx_rerank.models.encoders.xlm_roberta import XLMRoberta, XLMRobertaShape

SHAPE = XLMRobertaShape(250002, 1024, 24, 16, 4096, 8194, 1e-5, 1, 0, 2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    input_ids, mask = mx.zeros((2, 16), mx.int32), mx.ones((2, 16), mx.bool_)
    for name in NAMES:
        model = XLMRoberta(SHAPE)
        model.set_dtype(parse_dtype(name))
        found, times = report(model, parse_dtype(name), input_ids, mask), []
        for _ in range(rounds):
            start = time.perf_counter()
            report(model, parse_dtype(name), input_ids, mask)
            times.append(time.perf_counter() - start)
        print(
            f"{name:<9}{statistics.median(times):6.3f} s  ({min(times):.3f} to {max(times):.3f}), {found.operations} "
            f"operations, {len(found.violations)} violations, {mx.get_peak_memory() / 1e6:.1f} MB at most"
        )


if __name__ == "__main__":
    main()
