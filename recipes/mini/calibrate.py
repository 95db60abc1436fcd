"""Make a reranker's scores mean something: of the pairs that score 0.7, seven in ten should be right.

    python recipes/mini/calibrate.py CHECKPOINT DATA OUT [--plot reliability.png] [--json calibration.json]

CHECKPOINT is a Hugging Face directory, DATA holds the training sets. The questions that were held out of training
(crc32 of their id, modulo 50) are scored with their passage and the mined negatives; help texts, whose headings are no
questions, and languages that the vocabulary was not aimed at are left out. On half of them a temperature is fitted by
maximum likelihood, on the other half the calibration is measured and drawn. OUT is the checkpoint with the temperature
in its head's last layer: logits are divided by it, so that rankings stay as they are, and every way to run the model
gives the calibrated score.

Sources: temperature scaling and the expected calibration error: Guo et al. 2017 (arXiv 1706.04599).
"""

import argparse
import gzip
import json
import random
import shutil
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from mlx_rerank import Reranker

BINS = 10
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
HEAD = "classifier.out_proj."
LEFT_OUT = ("lohelp", "afriqa", "amqa")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a gzipped file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def held_out(data: Path, per_source: int, seed: int) -> list[tuple[str, list[str]]]:
    """Return questions that were not trained on, each with its passage, first, and its negatives.

    Args:
        data: directory of the training sets.
        per_source: most questions of one source in one language.
        seed: of which they are.
    """
    texts = {row["_id"]: row["text"] for row in read(data / "corpus.jsonl.gz")}
    by_source = defaultdict(list)
    for row in read(data / "train.jsonl.gz"):
        if zlib.crc32(row["_id"].encode()) % 50 == 0 and row["neg"] and not row["source"].startswith(LEFT_OUT):
            by_source[row["source"], row["lang"]].append(row)
    chosen = []
    for key in sorted(by_source):
        rows = by_source[key]
        chosen += random.Random(f"{seed}:{key}").sample(rows, min(per_source, len(rows)))
    return [(row["text"], [texts[row["pos"][0]], *(texts[i] for i in row["neg"])]) for row in chosen]


def fit(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature under which the labels are likeliest, between 1/20 and 20.

    Args:
        logits: float64 [N].
        labels: 0 or 1, [N].
    """
    from scipy.optimize import minimize_scalar

    def loss(power: float) -> float:
        cooled = logits / np.exp(power)
        return float(np.sum(np.logaddexp(0, cooled) - labels * cooled))

    found: Any = minimize_scalar(loss, bounds=(-np.log(20), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return scores of 0 to 1."""
    return 1 / (1 + np.exp(-logits))


def bins(scores: np.ndarray, labels: np.ndarray) -> list[dict[str, float]]:
    """Return, for each tenth of the scale that has scores, their mean, the share that is right, and their number."""
    which = np.minimum((scores * BINS).astype(int), BINS - 1)
    found = ((scores[which == i], labels[which == i]) for i in range(BINS) if (which == i).any())
    return [{"score": float(s.mean()), "right": float(r.mean()), "pairs": len(s)} for s, r in found]


def calibration_error(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean distance between score and share that is right, weighted by pairs."""
    return float(sum(b["pairs"] * abs(b["score"] - b["right"]) for b in bins(scores, labels)) / len(scores))


def at_thresholds(scores: np.ndarray, labels: np.ndarray) -> list[dict[str, float]]:
    """Return precision and recall of what scores at least so much."""
    rows = []
    for threshold in THRESHOLDS:
        kept = scores >= threshold
        right = float(labels[kept].sum())
        precision = right / kept.sum() if kept.any() else float("nan")
        rows.append({"threshold": threshold, "precision": precision, "recall": right / labels.sum()})
    return rows


def write(source: Path, target: Path, temperature: float) -> None:
    """Write the checkpoint with the temperature in its head."""
    shutil.copytree(source, target)
    tensors = load_file(source / "model.safetensors")
    for name in (HEAD + "weight", HEAD + "bias"):
        tensors[name] = (tensors[name].astype(np.float32) / temperature).astype(tensors[name].dtype)
    save_file(tensors, target / "model.safetensors", {"format": "pt"})


def plot(path: Path, before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> None:
    """Draw how often a score is right."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4.2, 4.2))
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
    for scores, name, colour in ((before, "as trained", "tab:orange"), (after, "calibrated", "tab:blue")):
        points = bins(scores, labels)
        label = f"{name}, error {calibration_error(scores, labels):.3f}"
        axes.plot([p["score"] for p in points], [p["right"] for p in points], "o-", color=colour, label=label)
    axes.set(xlabel="score", ylabel="share of pairs that are right", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(loc="upper left", frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Fit, measure, draw, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--per-source", type=int, default=25)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    questions = held_out(given.data, given.per_source, given.seed)
    pairs = [(query, text) for query, texts in questions for text in texts]
    reranker = Reranker(given.checkpoint, dtype="float32", max_length=given.max_length)
    logits = reranker.score(pairs, raw_scores=True).astype(np.float64)
    labels = np.concatenate([[1.0] + [0.0] * (len(texts) - 1) for _, texts in questions])
    half = np.repeat(np.arange(len(questions)) % 2 == 0, [len(texts) for _, texts in questions])
    temperature = fit(logits[half], labels[half])
    before, after, right = sigmoid(logits[~half]), sigmoid(logits[~half] / temperature), labels[~half]
    report = {
        "questions": len(questions),
        "pairs": len(pairs),
        "temperature": temperature,
        "error_before": calibration_error(before, right),
        "error_after": calibration_error(after, right),
        "share_right": float(right.mean()),
        "bins": bins(after, right),
        "thresholds": at_thresholds(after, right),
    }
    write(given.checkpoint, given.out, temperature)
    if given.plot:
        plot(given.plot, before, after, right)
    text = json.dumps(report, indent=1)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
