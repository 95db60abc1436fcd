"""What programs, and sentence-transformers' own evaluators, ask of a model besides scores."""

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.compat.sentence_transformers.activation import Activation
from mlx_rerank.compat.sentence_transformers.pool import Pool
from mlx_rerank.compat.warning import warn
from mlx_rerank.device.optional import imported
from mlx_rerank.pairs.arguments import require_whole_number
from mlx_rerank.pairs.limits import checked_length
from mlx_rerank.scoring.reranker import Reranker


class Device(str):
    """Where a model computes, by torch's name: equal to that text, and with the `type` of a torch.device."""

    __slots__ = ()
    type = property(str)

    @classmethod
    def of(cls, name: str) -> "Device":
        """Return the device that MLX calls "cpu" or "gpu"."""
        return cls("cpu" if name == "cpu" else "mps" if sys.platform == "darwin" else "cuda")


class ModelCardData:
    """What evaluators found, where sentence-transformers would put it on a model's card.

    Attributes:
        eval_results_dict: metrics by the evaluator that found them.
    """

    def __init__(self) -> None:
        self.eval_results_dict: dict[Any, dict[str, Any]] = {}

    def set_evaluation_metrics(self, evaluator: Any, metrics: dict[str, Any], epoch: int = 0, step: int = 0) -> None:
        """Keep the metrics that an evaluator found last."""
        self.eval_results_dict[evaluator] = dict(metrics)


class Config(SimpleNamespace):
    """A checkpoint's config.json, with `num_labels`."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as a dict."""
        return dict(vars(self))


class Attributes:
    """What a model says of itself; `CrossEncoder` adds what it computes."""

    num_labels = 1
    activation_fn: Activation | None  # None leaves logits as they are
    reranker: Reranker

    def __init__(self, checkpoint: Checkpoint, model_card_data: Any) -> None:
        """Read what is asked for.

        Args:
            checkpoint: of the model.
            model_card_data: what evaluators hand their metrics to; a `ModelCardData` if None.
        """
        self._shape, self._special_tokens = checkpoint.shape, checkpoint.encoder().frame.special_tokens
        self._token_names = dict(checkpoint.family.in_transformers.special_tokens)
        self._tokenizer: Any = None
        self.config = Config(**{**checkpoint.raw, "num_labels": 1})
        self.model_card_data = ModelCardData() if model_card_data is None else model_card_data

    @property
    def device(self) -> Device:
        """Where the model computes."""
        return Device.of(self.reranker.device)

    @property
    def max_length(self) -> int:
        """Most tokens of a pair; a longer pair loses tokens of its longer text, then of both."""
        return self._max_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        limit = self._shape.max_length
        if require_whole_number("max_length", value) > limit:
            warn(f"max_length {value} exceeds this model's {limit} tokens: longer pairs are cut to {limit}")
        self._max_length = checked_length(min(value, limit), limit, self._special_tokens)

    max_seq_length = max_length

    def get_max_seq_length(self) -> int:
        """Return `max_length`."""
        return self.max_length

    @property
    def tokenizer(self) -> Any:
        """The tokenizer as one of transformers', with its `model_max_length`; changing it changes no score.

        Raises:
            MissingDependencyError: transformers is not installed.
        """
        if self._tokenizer is None:
            kind = imported("transformers").PreTrainedTokenizerFast
            self._tokenizer = kind(tokenizer_object=self.reranker.encoder.tokenizer, **self._token_names)
        self._tokenizer.model_max_length = self.max_length
        return self._tokenizer

    @property
    def default_activation_function(self) -> Activation | None:
        """The old name of `activation_fn`."""
        message = "The `default_activation_function` property was renamed and is now deprecated: use `activation_fn`"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return self.activation_fn

    def is_singular_input(self, inputs: Any) -> bool:
        """Tell one pair of texts from several pairs."""
        return isinstance(inputs, Sequence | np.ndarray) and len(inputs) > 0 and isinstance(inputs[0], str)

    def evaluate(self, evaluator: Callable[..., Any], output_path: str | None = None) -> Any:
        """Return what an evaluator finds.

        Args:
            evaluator: one of sentence-transformers'.
            output_path: a directory for its results, made if need be.
        """
        if output_path is not None:
            Path(output_path).mkdir(parents=True, exist_ok=True)
        return evaluator(self, output_path)

    def start_multi_process_pool(self, target_devices: Sequence[Any] | None = None) -> Pool:
        """Start processes that share the pairs of a call, which `predict` and `rank` take as `pool`.

        One process already uses the GPU, or its share of the cores, so several are rarely faster.

        Args:
            target_devices: one for each process; four on the CPU if None, or one on a GPU.

        Raises:
            InputError: there are none, or torch has no such device.
        """
        usual = ["cpu"] * 4 if self.device == "cpu" else [self.device]
        return Pool(self.reranker.model, usual if target_devices is None else target_devices)

    @staticmethod
    def stop_multi_process_pool(pool: Pool) -> None:
        """End the processes of a pool."""
        pool.close()
