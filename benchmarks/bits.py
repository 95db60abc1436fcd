"""Whether logits have the same bits as at another revision of this repository.

    python benchmarks/bits.py REVISION [--model mini]

Scores the package's sample pairs in float32, float16 and bfloat16: once with the code of the revision, once with that
of the working tree, each in a process of its own. Exit code 1 where a bit differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
_CODE = """
import json, sys
from pathlib import Path
import mlx_rerank, numpy as np
samples = json.loads((Path(mlx_rerank.__file__).parent / "assets" / "samples.json").read_text(encoding="utf-8"))
pairs = [(query, document) for query in samples["queries"] for document in samples["documents"]]
model, dtype, target = sys.argv[1:]
np.save(target, mlx_rerank.Reranker(model, dtype=dtype).logits(pairs, show_progress=False).logits)
"""


def logits(checkout: Path, model: str, dtype: str, work: Path) -> np.ndarray:
    """Return the logits of the sample pairs as the code of a checkout computes them, float32 [N]."""
    target = work / "logits.npy"
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    subprocess.run([sys.executable, "-c", _CODE, model, dtype, str(target)], check=True, env=environment, cwd=work)
    return np.load(target)


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision")
    parser.add_argument("--model", default="mini", help="An embedded model's name, a hub id or a whole path.")
    given = parser.parse_args()
    differ = False
    with tempfile.TemporaryDirectory(prefix="mlx-rerank-bits-") as name:
        work, other = Path(name), Path(name) / "checkout"
        subprocess.run(
            ["git", "worktree", "add", "--quiet", "--detach", str(other), given.revision], check=True, cwd=ROOT
        )
        try:
            for dtype in ("float32", "float16", "bfloat16"):
                before, now = (logits(checkout, given.model, dtype, work) for checkout in (other, ROOT))
                same = np.count_nonzero(before.view(np.int32) == now.view(np.int32))
                differ |= same != len(now)
                print(f"{dtype:<9}{same} of {len(now)} logits have the same bits", flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(other)], check=True, cwd=ROOT)
    sys.exit(int(differ))


if __name__ == "__main__":
    main()
