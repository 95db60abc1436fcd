"""A model that learns: forward, backward, and an update of float32 weights, whatever dtype the passes run in.

Sources: AdamW: Loshchilov and Hutter 2019 (arXiv 1711.05101), as torch.optim.AdamW; float32 weights beside passes in
half precision, and loss scaling: Micikevicius et al. 2018 (arXiv 1710.03740). tests/parity/test_training.py.
"""

import math
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.optimizers import AdamW, clip_grad_norm
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from mlx_rerank.checkpoints.mapped import MappedEmbeddings, inputs_of
from mlx_rerank.device import memory, operations
from mlx_rerank.device.arrays import telling, to_numpy
from mlx_rerank.errors import NonFiniteScoreError
from mlx_rerank.models.family import Family, module_at
from mlx_rerank.models.layers import Model
from mlx_rerank.models.shape import Shape
from mlx_rerank.pairs.batching import Batch
from mlx_rerank.train import losses
from mlx_rerank.train.checkpointing import checkpoint_layers
from mlx_rerank.train.lora import LoRALinear, add_lora, low_rank_updates
from mlx_rerank.train.options import TrainingOptions
from mlx_rerank.train.steps import Part, Step

Arrays = dict[str, mx.array]
_FIRST_SCALE, _LARGEST_SCALE = 2.0**12, 2.0**16  # of the loss in float16, whose small gradients would be lost
_UNTIL_DOUBLED = 200  # steps without an overflow


@dataclass(frozen=True)
class Learned:
    """What a step did.

    Args:
        loss: before the update.
        grad_norm: of the gradient before it was clipped.
        skipped: whether float16 overflowed, so that nothing was updated.
    """

    loss: float
    grad_norm: float
    skipped: bool = False


class Learner:
    """A model, the float32 weights that are trained, and the optimizer's memory of them."""

    @telling()
    def __init__(
        self,
        model: Model,
        family: Family,
        shape: Shape,
        options: TrainingOptions,
        dtype: mx.Dtype,
        table: MappedEmbeddings | None = None,
    ) -> None:
        """Choose what is trained.

        Args:
            model: in float32; its frozen weights are cast to the dtype.
            family: of the model, which says what its matrices are.
            shape: of the model.
            options: of the run.
            dtype: of the forward and backward passes.
            table: the word embeddings, where the model has none of its own.

        Raises:
            DeviceError: the device could not compute it.
        """
        self.model, self.options, self.dtype = model, options, dtype
        self.steps, self.whole = 0, True
        self.scale = _FIRST_SCALE if dtype == mx.float16 else 1.0
        self._good, self._shape, self._table = 0, shape, table
        self._choose(family, shape)
        self.parameters: Arrays = dict(tree_flatten(model.trainable_parameters()))  # pyright: ignore[reportArgumentType]
        frozen: Arrays = dict(tree_flatten(model.parameters()))  # pyright: ignore[reportArgumentType]
        self.model.update(tree_unflatten([(n, v.astype(dtype)) for n, v in frozen.items() if n not in self.parameters]))
        self._optimizer = AdamW(0.0, betas=[0.9, 0.98], weight_decay=options.weight_decay, bias_correction=True)
        self._optimizer.init(self.parameters)
        mx.eval(self.parameters, model.parameters())

    def _choose(self, family: Family, shape: Shape) -> None:
        """Freeze what is not trained."""
        model = self.model
        if self.options.checkpoint_layers:
            checkpoint_layers(model)
        if self.options.lora_rank:
            matrices = [path for of_layer in family.packable(shape) for path in of_layer]
            add_lora(model, matrices, self.options.lora_rank, self.options.lora_scale, self.options.seed)
            model.freeze()
            model.head.unfreeze()
            for _, module in model.named_modules():
                if isinstance(module, LoRALinear):
                    module.unfreeze(keys=["lora_a", "lora_b"])
        elif self._table is None and not self.options.train_embeddings:
            module_at(model, family.words).freeze()

    @telling()
    def learn(self, step: Step, rate: float) -> Learned:
        """Update the weights once.

        Args:
            step: what to learn from.
            rate: the learning rate.

        Raises:
            NonFiniteScoreError: the loss or its gradient is NaN or infinite.
            DeviceError: the device could not compute it.
        """
        loss, total = mx.array(0.0), None
        for part in step.parts:
            value, gradient = self._gradient(part, step)
            total = gradient if total is None else tree_map(mx.add, total, gradient)
            loss = loss + value / self.scale
            mx.eval(loss, total)
            memory.bound_cache()
        assert total is not None
        gradient = {name: g / self.scale for name, g in total.items()} if self.scale != 1 else total
        clipped, norm = clip_grad_norm(gradient, self.options.max_grad_norm)
        reached = float(loss), float(norm)  # pyright: ignore[reportArgumentType]
        if not all(map(math.isfinite, reached)):
            return self._overflowed(*reached)
        self.whole = False  # until the update is complete, the state belongs to no step
        self._optimizer.learning_rate = rate
        self.parameters = self._optimizer.apply_gradients(clipped, self.parameters)
        mx.eval(self.parameters, self._optimizer.state)
        self.steps += 1
        self._good += 1
        if self.scale != 1 and self._good % _UNTIL_DOUBLED == 0:
            self.scale = min(2 * self.scale, _LARGEST_SCALE)
        self.whole = True
        return Learned(*reached)

    def _gradient(self, part: Part, step: Step) -> tuple[mx.array, Arrays]:
        """Return the part's share of the step's loss, scaled, and its gradient, lazily."""

        def objective(parameters: Arrays) -> mx.array:
            self._set(parameters)
            return self._loss(part, step) * self.scale

        with operations.differentiable():
            return mx.value_and_grad(objective)(self.parameters)

    def _loss(self, part: Part, step: Step) -> mx.array:
        """Return the sum of the part's losses, each divided by the whole step's count of what it sums over."""
        logits = mx.concatenate([self._logits(batch) for batch in part.batches])[mx.array(part.places)]
        teacher = None if part.teacher is None else mx.array(part.teacher)
        targets = losses.Targets(mx.array(part.shown), mx.array(part.labels), teacher)
        counts = step.groups, step.lists, step.documents, step.followers
        groups, lists, documents, followers = (max(1, n) for n in counts)
        terms = {
            "listwise": lambda: losses.listwise(logits, targets) / groups,
            "binary": lambda: losses.binary(logits, targets) / documents,
            "distillation": lambda: losses.distillation(logits, targets, self.options.temperature) / lists,
            "margin-mse": lambda: losses.margin_mse(logits, targets) / followers,
        }
        return sum((weight * terms[name]() for name, weight in self.options.losses.items()), mx.array(0.0))

    def _logits(self, batch: Batch) -> mx.array:
        """Return the logits of a batch, lazily."""
        return self.model(**inputs_of(batch, self._shape, self._table))

    def _set(self, parameters: Arrays) -> None:
        """Have the model compute with these weights, in the dtype of the passes."""
        self.model.update(tree_unflatten([(name, value.astype(self.dtype)) for name, value in parameters.items()]))

    @telling()
    def logits(self, batches: list[Batch]) -> list[np.ndarray]:
        """Return the logits of batches with the weights as they are now, float32 [B] each.

        Raises:
            DeviceError: the device could not compute them.
        """
        self._set(self.parameters)
        found = []
        for batch in batches:
            found.append(to_numpy(self._logits(batch)))
            memory.bound_cache()
        return found

    def weights(self) -> Arrays:
        """Return the trained weights by the model's names, float32; a matrix with a low-rank update is left out."""
        return {name: value for name, value in self.parameters.items() if "lora_" not in name}

    def updates(self) -> Arrays:
        """Return what low-rank updates add to the model's weights, by their names, float32."""
        self.model.update(tree_unflatten(list(self.parameters.items())))
        return low_rank_updates(self.model)

    def _overflowed(self, loss: float, norm: float) -> Learned:
        """Skip the step and halve the loss scale, or raise an error if it is 1 already: then the weights are lost."""
        if self.scale == 1:
            raise NonFiniteScoreError(
                f"training step {self.steps + 1} has a loss of {loss} and a gradient of norm {norm}: the weights are "
                f"lost; use a learning rate below {self.options.peak_rate:g}, or another dtype"
            )
        self.scale, self._good = self.scale / 2, 0
        self.steps += 1
        return Learned(loss, norm, skipped=True)

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Return all that the next steps depend on: arrays by name, and numbers."""
        arrays = {f"weights/{name}": value for name, value in self.parameters.items()}
        for name in self.parameters:
            arrays |= {f"{kind}/{name}": self._optimizer.state[name][kind] for kind in ("m", "v")}
        updates = self._optimizer.step.item()
        return arrays, {"steps": self.steps, "updates": updates, "scale": self.scale, "good": self._good}

    def restore(self, arrays: Arrays, numbers: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.parameters = {name: arrays[f"weights/{name}"] for name in self.parameters}
        for name in self.parameters:
            memory_of: Any = {kind: arrays[f"{kind}/{name}"] for kind in ("m", "v")}
            self._optimizer.state[name] = memory_of
        self._optimizer.state["step"] = mx.array(numbers["updates"], mx.uint64)
        self.steps, self.scale, self._good = numbers["steps"], numbers["scale"], numbers["good"]
