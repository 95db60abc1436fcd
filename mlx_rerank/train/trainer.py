"""A training run, from a file of queries and documents to a directory that `Reranker` loads."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from tqdm import tqdm

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.digest import sha256
from mlx_rerank.checkpoints.mapped import MappedEmbeddings, choose_embeddings
from mlx_rerank.checkpoints.writing import require_absent
from mlx_rerank.device import operations
from mlx_rerank.device.names import parse_device
from mlx_rerank.dtypes import default_dtype, parse_dtype
from mlx_rerank.errors import InputError
from mlx_rerank.pairs.limits import checked_length
from mlx_rerank.pairs.switches import optional_boolean
from mlx_rerank.train.evaluation import logits_of, mean_ndcg
from mlx_rerank.train.examples import Example, read_examples
from mlx_rerank.train.learner import Learned, Learner
from mlx_rerank.train.negatives import mine, require_bm25
from mlx_rerank.train.options import TrainingOptions
from mlx_rerank.train.progress import Progress
from mlx_rerank.train.saving import save_trained
from mlx_rerank.train.steps import Step, Steps

Data = str | Path | Sequence[Example]
Record = dict[str, Any]
Report = Callable[[Record], None]


def train(
    data: Data,
    output: str | Path,
    *,
    model: str | Path = "mini",
    dev: Data | None = None,
    corpus: Iterable[str] = (),
    options: TrainingOptions | None = None,
    dtype: str = "float16",
    device: str | None = None,
    revision: str | None = None,
    report: Report | None = None,
    show_progress: bool | None = None,
) -> Path:
    """Train a reranker and write it to a directory.

    While it runs, its state is kept in a file beside the directory. An interrupted run goes on from there when it is
    called again with the same arguments, and ends with the same result as without the interruption; on a CPU to the
    bit.

    Args:
        data: queries with documents, or a file of them (`read_examples`).
        output: the directory to write, which must not exist.
        model: what to begin with: an embedded model's name, a hub id, or a directory.
        dev: queries with labelled documents whose nDCG@10 is followed. They are not trained on.
        corpus: documents from which hard negatives are taken, beside the data's own.
        options: of the run.
        dtype: of the weights in the directory, where the model's are not packed; float32 ones are trained.
        device: "gpu" or "cpu"; MLX's default one if None.
        revision: branch, tag or commit of a hub model.
        report: called with the number of the step, the mean loss since the last time and the dev set's nDCG@10, before
            the first step and whenever the dev set is looked at.
        show_progress: a progress bar on stderr; on a terminal if None.

    Returns:
        The directory. Its config.json and model card hold the options, and how the loss and nDCG went.

    Raises:
        InputError: the data, an option or the state of an interrupted run cannot be used.
        OutputError: the directory exists or cannot be written.
        CheckpointError, CheckpointNotFoundError: the model cannot be used.
        NonFiniteScoreError: the loss became NaN or infinite.
        DeviceError: this machine has no such device, or it failed; the last complete step is kept.
        MissingDependencyError: negatives are asked for, and bm25s is not installed.
    """
    target, kept = require_absent(output), parse_dtype(dtype)
    show_progress = optional_boolean("show_progress", show_progress)
    options = TrainingOptions() if options is None else options
    if options.negatives is not None:
        require_bm25()
    elif next(iter(corpus), None) is not None:
        raise InputError("corpus is where hard negatives are taken from: choose TrainingOptions(negatives=...)")
    examples, held_out = _examples(data), [] if dev is None else _examples(dev)
    if dev is not None and not any(label > 0 for example in held_out for label in example.labels):
        raise InputError(f"none of the {len(held_out)} queries of dev has a relevant document: nDCG needs one")
    place = parse_device(device)
    with operations.on(place):
        checkpoint = Checkpoint.open(model, revision=revision)
        run = Run(checkpoint, options, default_dtype(place) if options.dtype is None else parse_dtype(options.dtype))
        if options.negatives is not None:
            score = run.logits if options.negatives == "model" else None
            examples = mine(examples, corpus, run.mapping, score)
        _require_something_to_learn(examples, options)
        facts = {**asdict(options), "data": _digest(examples), "dev": _digest(held_out)}
        progress = Progress(target, {**facts, "model": checkpoint.fingerprint(sha256), "device": str(place)})
        history = run.to_the_end(examples, held_out, progress, report, show_progress)
        record = {"queries": len(examples), "options": asdict(options), "history": history}
        save_trained(target, checkpoint, str(model), run.learner, kept, record)
    progress.remove()
    return target


@dataclass
class Since:
    """Sums over the steps that came after the last note."""

    updates: int = 0
    loss: float = 0.0
    skipped_steps: int = 0
    truncated_tokens: int = 0

    def add(self, step: Step, learned: Learned) -> None:
        """Count a step; the loss of one that was skipped may be infinite."""
        self.updates += not learned.skipped
        self.loss += 0.0 if learned.skipped else learned.loss
        self.skipped_steps += learned.skipped
        self.truncated_tokens += step.truncated_tokens

    def record(self) -> Record:
        """Return what is to be noted of them."""
        if not self.updates + self.skipped_steps:
            return {}
        loss = {"loss": self.loss / self.updates} if self.updates else {}
        return loss | {"skipped_steps": self.skipped_steps, "truncated_tokens": self.truncated_tokens}


class Run:
    """A model on its way from the first step to the last."""

    def __init__(self, checkpoint: Checkpoint, options: TrainingOptions, dtype: mx.Dtype) -> None:
        """Load the model.

        Args:
            checkpoint: to begin with.
            options: of the run.
            dtype: of the forward and backward passes.
        """
        self.options, longest = options, checkpoint.shape.max_length
        self.encoder, self.mapping = checkpoint.encoder(), checkpoint.mapping
        usual_length = checkpoint.settings.usual_length(longest, checkpoint.family.usual_length)
        wanted = usual_length if options.max_length is None else options.max_length
        self.max_length = checked_length(wanted, longest, self.encoder.frame.special_tokens)
        mapped = not options.train_embeddings and (
            choose_embeddings(checkpoint, dtype, keep_quantized=False, wanted=None) == "mapped"
        )
        model = checkpoint.load(mx.float32, keep_quantized=False, evaluate=False, words=not mapped)
        table = MappedEmbeddings.open(checkpoint, dtype) if mapped else None
        self.learner = Learner(model, checkpoint.family, checkpoint.shape, options, dtype, table)
        self.since = Since()

    def logits(self, examples: Sequence[Example]) -> list[np.ndarray]:
        """Return the logits of every example's documents, with the weights as they are."""
        budget = self.options.token_budget
        return logits_of(self.learner.logits, self.encoder, examples, self.max_length, budget)

    def to_the_end(
        self,
        examples: Sequence[Example],
        dev: Sequence[Example],
        progress: Progress,
        report: Report | None,
        show_progress: bool | None,
    ) -> list[Record]:
        """Take the steps that are left, and return all notes, those from before an interruption included."""
        steps = Steps(examples, self.encoder, self.options, self.max_length)
        history, since = progress.restore(self.learner)
        self.since = Since(**since)
        bar = tqdm(
            total=len(steps), initial=self.learner.steps, desc="Training", unit="step",
            disable=None if show_progress is None else not show_progress,
        )  # fmt: skip
        try:
            with bar:
                self._take(steps, dev, progress, history, _silent if report is None else report, bar)
        except BaseException:  # Ctrl-C above all; the last complete step is what the next run goes on from
            if self.learner.whole:
                progress.save(self.learner, history, asdict(self.since))
            raise
        return history

    def _take(
        self, steps: Steps, dev: Sequence[Example], progress: Progress, history: list[Record], report: Report, bar: Any
    ) -> None:
        """Take the steps that are left."""
        self._note(steps, dev, history, report)
        for step in steps.after(self.learner.steps):
            learned = self.learner.learn(step, self.options.rate(self.learner.steps, len(steps)))
            self.since.add(step, learned)
            bar.set_postfix(loss=f"{learned.loss:.3f}", refresh=False)
            bar.update()
            self._note(steps, dev, history, report)
            if self.learner.steps % self.options.save_every == 0 or self.learner.steps == len(steps):
                progress.save(self.learner, history, asdict(self.since))

    def _note(self, steps: Steps, dev: Sequence[Example], history: list[Record], report: Report) -> None:
        """Note the run's progress, if that is due and was not done before an interruption."""
        done, every = self.learner.steps, self.options.evaluate_every
        due = done in (0, len(steps)) or (done % every == 0 if every else steps.epoch_ends(done))
        if not due or (history and history[-1]["step"] == done):
            return
        ndcg = {"dev_ndcg": mean_ndcg(dev, self.logits(dev))} if dev else {}
        history.append({"step": done} | self.since.record() | ndcg)
        self.since = Since()
        report(history[-1])


def _silent(_: Record) -> None:
    """Report to nobody."""


def _examples(data: Data) -> list[Example]:
    """Return training data, read where it is a file."""
    examples = read_examples(data) if isinstance(data, (str, Path)) else list(data)
    for example in examples:
        if not isinstance(example, Example):
            raise InputError(f"data holds a {type(example).__name__}: give Examples, or the name of a file")
    return examples


def _require_something_to_learn(examples: Sequence[Example], options: TrainingOptions) -> None:
    """Raise InputError where the data cannot move the chosen losses."""
    if not examples:
        raise InputError("there are no queries to train on")
    taught = {"distillation", "margin-mse"} & options.losses.keys()
    if taught:
        without = sum(example.teacher is None for example in examples)
        if without:
            raise InputError(
                f"{' and '.join(sorted(taught))} need a teacher's scores, which {without} of {len(examples)} queries "
                "lack (mined negatives have none either): give pos_scores and neg_scores, or choose other losses"
            )
    elif len({label for example in examples for label in example.labels}) < 2:
        raise InputError(
            f"all documents of {len(examples)} queries are labelled {examples[0].labels[0]:g}: give documents that are "
            "not relevant too, or have some mined with negatives='bm25'"
        )


def _digest(examples: Sequence[Example]) -> str:
    """Return a hash of training data."""
    text = json.dumps([astuple(example) for example in examples], default=float)  # numpy's numbers
    return hashlib.sha256(text.encode()).hexdigest()
