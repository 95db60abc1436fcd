"""How a model is trained: every choice, with what is usual."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mlx_rerank.dtypes import parse_dtype
from mlx_rerank.errors import InputError
from mlx_rerank.pairs.arguments import require_whole_number
from mlx_rerank.pairs.switches import require_boolean

LOSSES = ("listwise", "binary", "distillation", "margin-mse")
NEGATIVES = ("bm25", "model")
_DEFAULT_LOSSES = MappingProxyType({"listwise": 1.0, "binary": 0.5})


@dataclass(frozen=True)
class TrainingOptions:
    """Choices of a training run. Two runs with the same options, data and machine give the same bits.

    Args:
        epochs: times that every query is seen.
        batch_size: queries of a step.
        group_size: most documents of a query in a step: a positive one and others.
        learning_rate: at its peak; 2e-5 for full training and 2e-4 for LoRA if None.
        warmup: share of the steps in which the rate rises, before it falls in a straight line to nothing.
        weight_decay: of AdamW, on everything that is trained.
        max_grad_norm: to which the gradient of a step is clipped.
        losses: weights of the losses whose sum is minimised; see losses.py.
        temperature: of the teacher's scores, for distillation.
        lora_rank: of the low-rank updates of the encoder's matrices; 0 trains the matrices themselves.
        lora_alpha: the updates are multiplied by alpha / rank; twice the rank if None.
        train_embeddings: train the word embeddings too. They are most of a small model's weights, and a few texts touch
            few rows.
        max_length: most tokens of a pair; as for `Reranker` if None.
        token_budget: most tokens whose activations are held at once; a larger step accumulates gradients.
        checkpoint_layers: compute activations again in the backward pass instead of keeping them: much less memory, for
            about a third more time.
        dtype: that the forward and backward passes run in, beside float32 weights; float16 on a GPU and float32 on a
            CPU if None.
        negatives: "bm25" or "model" adds hard negatives to the data's own (negatives.py).
        seed: of the order, the choice of documents, and the low-rank updates' first values.
        evaluate_every: steps between evaluations on the dev set; once an epoch if None.
        save_every: steps between saves from which an interrupted run goes on.
    """

    epochs: int = 1
    batch_size: int = 8
    group_size: int = 8
    learning_rate: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    losses: Mapping[str, float] = field(default_factory=lambda: dict(_DEFAULT_LOSSES))
    temperature: float = 1.0
    lora_rank: int = 0
    lora_alpha: float | None = None
    train_embeddings: bool = False
    max_length: int | None = None
    token_budget: int = 4096
    checkpoint_layers: bool = False
    dtype: str | None = None
    negatives: str | None = None
    seed: int = 0
    evaluate_every: int | None = None
    save_every: int = 100

    def __post_init__(self) -> None:
        """Raise InputError for a value that cannot be used."""
        least = {"group_size": 2, "lora_rank": 0, "seed": 0, "max_length": 0}
        for name in ("epochs", "batch_size", "token_budget", "save_every", "evaluate_every", *least):
            if getattr(self, name) is not None:
                number = require_whole_number(name, getattr(self, name), least.get(name, 1))
                object.__setattr__(self, name, number)  # numpy's integers do not go into JSON
        for name in ("train_embeddings", "checkpoint_layers"):
            object.__setattr__(self, name, require_boolean(name, getattr(self, name)))  # numpy's neither
        for name in ("learning_rate", "max_grad_norm", "temperature", "lora_alpha"):
            _require_number(name, getattr(self, name), above=0)
        _require_number("weight_decay", self.weight_decay)
        if not self.lora_rank and self.lora_alpha is not None:
            raise InputError("lora_alpha is for low-rank updates: give a lora_rank too")
        if self.lora_rank and self.train_embeddings:
            raise InputError("low-rank updates leave the word embeddings alone: train_embeddings needs lora_rank=0")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup is a share of the steps, from 0 to below 1, not {self.warmup!r}")
        if not isinstance(self.losses, Mapping):
            raise InputError(f"losses are weights by name, such as {{'listwise': 1.0}}, not {self.losses!r}")
        object.__setattr__(self, "losses", dict(self.losses))
        for name, weight in self.losses.items():
            if name not in LOSSES:
                raise InputError(f"loss {name!r} is not one of {', '.join(LOSSES)}")
            _require_number(f"the weight of {name}", weight, above=0)
        if not self.losses:
            raise InputError(f"there is no loss to minimise: name one or more of {', '.join(LOSSES)}")
        if self.temperature != 1 and "distillation" not in self.losses:
            raise InputError("temperature is of the teacher's scores: give the loss distillation too")
        if self.negatives not in (None, *NEGATIVES):
            raise InputError(f"negatives {self.negatives!r} is not one of {', '.join(NEGATIVES)}")
        if self.dtype is not None:
            parse_dtype(self.dtype)

    @property
    def peak_rate(self) -> float:
        """The highest learning rate."""
        usual = 2e-4 if self.lora_rank else 2e-5
        return usual if self.learning_rate is None else self.learning_rate

    @property
    def lora_scale(self) -> float:
        """What low-rank updates are multiplied by."""
        return (2 * self.lora_rank if self.lora_alpha is None else self.lora_alpha) / max(1, self.lora_rank)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0, of `steps`: up, then down, in straight lines."""
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return self.peak_rate * (step + 1) / rising
        return self.peak_rate * (steps - step) / (steps - rising)


def _require_number(name: str, value: float | None, above: float | None = None) -> None:
    """Raise InputError unless a value is None or a finite number, of at least 0 or above a bound."""
    if value is None:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (above is not None and value <= above):
        raise InputError(
            f"{name} must be a finite number {'above 0' if above is not None else 'of at least 0'}, not {value!r}"
        )
