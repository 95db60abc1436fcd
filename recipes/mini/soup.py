"""Average checkpoints of one training run, weight by weight.

    python recipes/mini/soup.py OUT CHECKPOINT CHECKPOINT ...

They are Hugging Face directories; one that is named twice counts twice. OUT has the other files of the first.

Source: Wortsman et al. 2022, "Model soups" (arXiv 2203.05482).
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

WEIGHTS = "model.safetensors"


def main() -> None:
    """Write the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    args = parser.parse_args()
    shutil.copytree(args.checkpoints[0], args.out)
    found = [load_file(path / WEIGHTS) for path in args.checkpoints]
    mean = {
        name: np.mean([tensors[name].astype(np.float32) for tensors in found], axis=0).astype(first.dtype)
        for name, first in found[0].items()
    }
    save_file(mean, args.out / WEIGHTS, {"format": "pt"})


if __name__ == "__main__":
    main()
