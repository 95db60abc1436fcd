"""Data and runs for tests of training, on the tiny checkpoint's letters."""

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.train import Example, TrainingOptions
from mlx_rerank.train.steps import Step, Steps
from mlx_rerank.train.trainer import Run

WORDS = ("panda", "bear", "what", "is", "the", "eats", "sun", "tea", "cold", "river")


def text(random: np.random.Generator, most: int) -> str:
    return " ".join(random.choice(WORDS, random.integers(1, most + 1)))


def make_examples(queries: int, documents: int = 4, *, taught: bool = True, seed: int = 0) -> list[Example]:
    """Return queries with some documents, of different lengths, the first of them relevant."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(queries):
        n = int(random.integers(2, documents + 1))
        teacher = tuple(map(float, random.normal(size=n).astype(np.float32))) if taught else None
        texts = tuple(f"{text(random, 9)} {i} {j}" for j in range(n))
        made.append(Example(f"{text(random, 3)} {i}", texts, (1.0,) + (0.0,) * (n - 1), teacher))
    return made


def make_run(directory: Path, dtype: mx.Dtype = mx.float32, **options: object) -> Run:
    return Run(Checkpoint.open(directory), TrainingOptions(**options), dtype)  # pyright: ignore[reportArgumentType]


def steps_of(run: Run, examples: Sequence[Example], **other: object) -> list[Step]:
    """Return a run's steps, with other options where they are given."""
    options = TrainingOptions(**(vars(run.options) | other))  # pyright: ignore[reportArgumentType]
    return list(Steps(examples, run.encoder, options, run.max_length).after(0))


def gradient_of(run: Run, step: Step) -> tuple[float, dict[str, np.ndarray]]:
    """Return a step's loss and gradient, summed over its parts."""
    parts = [run.learner._gradient(part, step) for part in step.parts]
    names = parts[0][1]
    return sum(float(loss) for loss, _ in parts), {n: np.sum([np.array(g[n]) for _, g in parts], axis=0) for n in names}


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the norm of the difference over the norm of what is expected."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
