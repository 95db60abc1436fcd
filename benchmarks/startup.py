"""How long it takes from a new process to the import, and to the first score.

    python benchmarks/startup.py [--model mini] [--rounds 7] [--output startup.json]

Each round is a fresh process. Prints one table of medians with the fastest and slowest, and writes one JSON file.
"""

import argparse
import datetime as dt
import json
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

STEPS = {
    "python alone": "pass",
    "import mlx_rerank": "import mlx_rerank",
    "first score": "from mlx_rerank import Reranker; Reranker({model!r}).score('what do pandas eat?', 'Bamboo.')",
}


def seconds(code: str) -> float:
    """Return the wall time of a fresh process that runs some code."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in STEPS}
    for _ in range(arguments.rounds):
        for name, code in STEPS.items():
            times[name].append(seconds(code.format(model=arguments.model)))
    for name, values in times.items():
        print(f"{name:<20}{statistics.median(values):6.3f} s  ({min(values):.3f} to {max(values):.3f})")
    report = {
        "date": dt.date.today().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {platform.processor() or 'unknown processor'}",
        "versions": {name: version(name) for name in ("mlx-rerank", "mlx", "tokenizers", "numpy")},
        "python": platform.python_version(),
        "model": arguments.model,
        "seconds": times,
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
