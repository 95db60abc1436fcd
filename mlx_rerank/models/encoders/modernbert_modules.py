"""ModernBERT under a head of sentence-transformers' modules, such as the ettin rerankers.

Follows sentence-transformers' Pooling, Dense and LayerNorm, which its CrossEncoder runs one after the other over
transformers' ModernBertModel. tests/families/test_modernbert_modules.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rerank.device import operations
from mlx_rerank.errors import CheckpointError, UnsupportedModelError
from mlx_rerank.models.encoders import modernbert
from mlx_rerank.models.encoders.modernbert_shape import ModernBertShape, read, require_run
from mlx_rerank.models.family import MODULES_KEY, wanted
from mlx_rerank.models.known import LEFT_AS_LOGITS, KnownModel
from mlx_rerank.models.layers import LayerNorm, Linear
from mlx_rerank.models.rules import Rule, linear, norm

_TITLE, _EXAMPLE = "modular ModernBERT", "cross-encoder/ettin-reranker-32m-v1"
_WANTED = wanted(_TITLE, _EXAMPLE)
_EPS = 1e-5  # torch's own, which the modules' files do not state
_TYPE = "sentence_transformers."
_ACTIVATIONS = {
    "torch.nn.modules.activation.GELU": lambda x: operations.gelu(x),  # looked up at each call, as audits replace it
    "torch.nn.modules.activation.Tanh": mx.tanh,
    "torch.nn.modules.linear.Identity": lambda x: x,
}
_POOLING = {"include_prompt": True}
_DENSE = {"module_input_name": "sentence_embedding", "use_residual": False}
_KEYS = {
    "Pooling": {*_POOLING, "pooling_mode", "embedding_dimension", "word_embedding_dimension"},
    "Dense": {*_DENSE, "in_features", "out_features", "bias", "activation_function", "module_output_name"},
    "LayerNorm": {"dimension"},
}


@dataclass(frozen=True)
class Step:
    """A module of the head.

    Args:
        path: its folder, where its weights are.
        inputs: numbers of its vector.
        outputs: numbers of its result; 0 for a layer normalisation.
        bias: whether a dense one has a bias.
        activation: path of a dense one's class.
    """

    path: str
    inputs: int
    outputs: int = 0
    bias: bool = True
    activation: str = "torch.nn.modules.linear.Identity"


@dataclass(frozen=True)
class ModularShape(ModernBertShape):
    """The numbers of a ModernBERT and of its head's modules."""

    steps: tuple[Step, ...]


class Head(nn.Module):
    """The relevance logit of a pair, by modules one after the other."""

    def __init__(self, shape: ModularShape) -> None:
        super().__init__()
        self.steps = [
            Linear(step.inputs, step.outputs, bias=step.bias) if step.outputs else LayerNorm(step.inputs, eps=_EPS)
            for step in shape.steps
        ]
        self._activations = [_ACTIVATIONS[step.activation] for step in shape.steps]

    def __call__(self, x: mx.array) -> mx.array:
        """Map [B, D] to [B]."""
        for step, activation in zip(self.steps, self._activations, strict=True):
            x = activation(step(x))
        return x.squeeze(-1)


def _build(shape: ModularShape) -> modernbert.ModernBert:
    """Return the model."""
    return modernbert.ModernBert(shape, Head(shape))


def _accepts(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json, with its modules, is of such a model; refuse what its modules would do otherwise."""
    if config.get("model_type") != "modernbert" or not config.get(MODULES_KEY):
        return False
    if config.get("architectures") != ["ModernBertModel"]:
        raise UnsupportedModelError(
            f"{_WANTED} with architectures ['ModernBertModel']; found {config.get('architectures')} under modules"
        )
    require_run(config, _WANTED)
    _require_head(config)
    return True


def _require_head(config: Mapping[str, Any]) -> None:
    """Refuse modules that are not run.

    Raises:
        UnsupportedModelError: there are some.
        CheckpointError: the modules are no list of objects with a path.
    """
    modules = config.get(MODULES_KEY)
    if (
        not isinstance(modules, list)
        or not modules
        or not all(isinstance(one, dict) and isinstance(one.get("path"), str) for one in modules)
    ):
        raise CheckpointError(f"config.json has {MODULES_KEY} {modules!r:.80}, where a list of modules is expected")
    pooling, *steps = modules
    _require_module(pooling, "Pooling", _POOLING)
    _mean(pooling)
    for step in steps:
        if _kind(step) == "LayerNorm":
            _require_module(step, "LayerNorm", {})
            continue
        output = "scores" if step is steps[-1] else "sentence_embedding"
        _require_module(step, "Dense", {**_DENSE, "module_output_name": output})
        if str(step.get("activation_function")) not in _ACTIVATIONS:
            raise UnsupportedModelError(
                f"{_WANTED} with activations {', '.join(_ACTIVATIONS)}; found {step.get('activation_function')!r} in "
                f"{step['path']}"
            )
    if not steps or _kind(steps[-1]) != "Dense":
        raise UnsupportedModelError(f"{_WANTED} whose last module is a Dense that gives 'scores'; found none")


def _kind(module: Mapping[str, Any]) -> str:
    """Return the name of a module's class."""
    return str(module.get("type")).rpartition(".")[2]


def _require_module(module: Mapping[str, Any], kind: str, expected: Mapping[str, Any]) -> None:
    """Refuse a module of another kind, with other values, or with settings that are not known.

    Raises:
        UnsupportedModelError: it is one.
    """
    if _kind(module) != kind or not str(module.get("type")).startswith(_TYPE):
        raise UnsupportedModelError(
            f"{_WANTED} with modules Pooling, Dense and LayerNorm; found {module.get('type')!r} in "
            f"{module.get('path')!r}"
        )
    for key, value in module.items():
        known = key in ("type", "path") or key in _KEYS[kind] or (kind == "Pooling" and key.startswith("pooling_mode_"))
        if not known or value != expected.get(key, value):
            want = f"{expected[key]!r}" if key in expected else "not set"
            raise UnsupportedModelError(f"{_WANTED} with {key} {want}; found {value!r} in {module['path']}")


def _mean(pooling: Mapping[str, Any]) -> bool:
    """Tell whether a pooling is the mean, else the first token; versions before 6 of the library saved booleans.

    Raises:
        UnsupportedModelError: it is neither.
    """
    older = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    set_ = [older.get(key, key) for key, value in pooling.items() if key.startswith("pooling_mode_") and value]
    mode = pooling.get("pooling_mode") or (set_[0] if len(set_) == 1 else set_)
    if mode not in ("cls", "mean"):
        raise UnsupportedModelError(f"{_WANTED} with pooling_mode 'cls' or 'mean'; found {mode!r} in {pooling['path']}")
    return mode == "mean"


def _shape(config: Mapping[str, Any]) -> ModularShape:
    """Read the numbers of a config.json, with its modules.

    Raises:
        CheckpointError: sizes of modules are missing, or do not follow from one another.
    """
    _require_head(config)  # a converted directory is opened by its record alone
    pooling, *modules = config[MODULES_KEY]
    width: Any = config.get("hidden_size")
    steps: list[Step] = []
    sizes = [pooling[key] for key in ("embedding_dimension", "word_embedding_dimension") if key in pooling]
    _require_width(pooling, sizes[0] if sizes else None, width)
    for module in modules:
        if _kind(module) == "LayerNorm":
            _require_width(module, module.get("dimension"), width)
            steps.append(Step(module["path"], width))
            continue
        outputs, bias = module.get("out_features"), module.get("bias")
        _require_width(module, module.get("in_features"), width)
        last = module is modules[-1]
        if type(outputs) is not int or not 0 < outputs < 2**20 or type(bias) is not bool or (last and outputs != 1):
            raise CheckpointError(
                f"{module['path']}/config.json has out_features {outputs!r} and bias {bias!r}: they must be a size, "
                "of the last module 1, and true or false"
            )
        steps.append(Step(module["path"], width, outputs, bias, module["activation_function"]))
        width = outputs
    return ModularShape(**vars(replace(read(config), mean=_mean(pooling))), steps=tuple(steps))


def _require_width(module: Mapping[str, Any], found: Any, expected: Any) -> None:
    """Refuse a module that does not take the vector that the one before it gives.

    Raises:
        CheckpointError: its size is another.
    """
    if type(found) is not int or found != expected:
        raise CheckpointError(f"{module['path']}/config.json says a size of {found!r}; it is given one of {expected!r}")


def _table(shape: ModularShape) -> list[Rule]:
    """Return the rules of all parameters; tensors of a module begin with its folder."""
    rules = modernbert.backbone_rules(shape, "")
    for number, step in enumerate(shape.steps):
        own = f"head.steps.{number}"
        if step.outputs:
            rules += linear(own, [f"{step.path}/linear"], step.outputs, step.inputs, bias=step.bias)
        else:
            rules += norm(own, f"{step.path}/norm", step.inputs)
    return rules


FAMILY = replace(
    modernbert.FAMILY,
    name="modernbert-modules",
    title=_TITLE,
    example=_EXAMPLE,
    accepts=_accepts,
    shape=_shape,
    table=_table,
    build=_build,
    score_rule="the first token, or the mean of all, as the pooling says, by the modules of the head",
    in_transformers=replace(modernbert.FAMILY.in_transformers, model="ModernBertModel"),
    known=tuple(
        KnownModel(f"cross-encoder/ettin-reranker-{size}-v1", LEFT_AS_LOGITS, millions, "English", "Apache-2.0", 8192)
        for size, millions in {"17m": 17, "32m": 32, "68m": 68, "150m": 150, "400m": 400, "1b": 1000}.items()
    ),
)
