"""What a family of models provides: all that differs between checkpoints of one family and those of another.

A family is one file of `encoders` or `decoders`, and a line in the registry (`models/__init__.py`). Outside of these
folders nobody names a family, a tensor of a checkpoint or a special token.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import mlx.nn as nn
from tokenizers import Tokenizer

from mlx_rerank.errors import CheckpointError, UnsupportedModelError, WeightsError
from mlx_rerank.models.cost import Cost
from mlx_rerank.models.known import KnownModel
from mlx_rerank.models.layers import Model
from mlx_rerank.models.mapping import ScoreMapping
from mlx_rerank.models.rules import Rule
from mlx_rerank.models.shape import Shape
from mlx_rerank.models.templates import Template
from mlx_rerank.pairs.frames import Frame

Config = Mapping[str, Any]
MODULES_KEY = "sentence_transformers_modules"  # of a config.json: what the files of a head's modules say


@dataclass(frozen=True)
class InTransformers:
    """Where the PyTorch reference finds the same model.

    Args:
        model: name of its class in transformers.
        config: name of its configuration's class.
        tokenizer: name of its tokenizer's class.
        special_tokens: arguments for a tokenizer that is made of tokenizer.json alone.
        hidden_states: takes a shape, gives the module path of each hidden state, in transformers' order.
        settings: entries of config.json that the model reads, though its configuration's class does not list them.
        restored: name of the class that a converted model is restored as; `model` if None.
        prefix_space: whether its tokenizer reads texts as after a space.
        last_token: whether the last layer computes a row's last token alone, not its first.
        translated: takes a config.json, gives one that its configuration's class reads.
        table: takes a shape, gives the rules of all parameters by transformers' names, where a checkpoint has others.
        other_tokenizers: classes that checkpoints also name, and that read texts as its own does.
    """

    model: str
    config: str
    tokenizer: str
    special_tokens: Mapping[str, str]
    hidden_states: Callable[[Any], list[str]]
    settings: tuple[str, ...] = ()
    restored: str | None = None
    prefix_space: bool = True
    last_token: bool = False
    translated: Callable[[Config], Config] = dict
    table: Callable[[Any], list[Rule]] | None = None
    other_tokenizers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """Models that share a file.

    Args:
        name: under which a converted directory records it.
        title: what people call it.
        example: one of its models on the hub.
        accepts: tells whether a config.json is of this family; refuses a relative that is not run, saying what was
            found (UnsupportedModelError).
        shape: reads the numbers of a config.json (CheckpointError).
        table: takes a shape, gives the rules of all parameters.
        ignored: how the names of tensors begin that a checkpoint may hold and that are not used, as in transformers.
        frame: takes a tokenizer and a shape, gives what surrounds two texts (CheckpointError if they do not fit).
        build: takes a shape, gives a module with `layers` and a `head`. It maps ids int32 [B, L], attention_mask and
            segments bool [B, L] or None, and words [B, L, D] or None, to logits float32 [B]; the score rule is in it.
        score_rule: what a logit is read from, in words.
        mapping: of logits to scores in 0..1.
        words: path of the table of word embeddings.
        packable: takes a shape, gives each layer's matrices that may be packed, by path, with the width of their rows.
        cost: takes a shape, gives what a token costs.
        in_transformers: where the reference finds it.
        known: its models on the hub.
        template: of the prompt that its models read; None where there is none.
        usual_length: most tokens of a pair that are read where nobody says.
        renamed: takes a tensor's name in a checkpoint, gives the table's, where checkpoints differ in that.
    """

    name: str
    title: str
    example: str
    accepts: Callable[[Config], bool]
    shape: Callable[[Config], Shape]
    table: Callable[[Any], list[Rule]]
    ignored: tuple[str, ...]
    frame: Callable[[Tokenizer, Any], Frame]
    build: Callable[[Any], Model]
    score_rule: str
    mapping: ScoreMapping
    words: str
    packable: Callable[[Any], Sequence[Mapping[str, int]]]
    cost: Callable[[Shape], Cost]
    in_transformers: InTransformers
    known: tuple[KnownModel, ...] = ()
    template: Template | None = None
    usual_length: int = 512

    renamed: Callable[[str], str] = str

    def source_shapes(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor that a Hugging Face checkpoint of this shape must hold."""
        return {source.name: source.shape for rule in self.table(shape) for source in rule.sources}

    def float32(self, shape: Shape) -> frozenset[str]:
        """Return the names of the parameters that stay float32 whatever the model's dtype."""
        return frozenset(rule.target for rule in self.table(shape) if rule.float32)

    def names(self, found: Iterable[str]) -> dict[str, str]:
        """Return the names of a checkpoint's tensors by what the table calls them.

        Raises:
            WeightsError: two of them would be the same tensor.
        """
        names: dict[str, str] = {}
        for name in found:
            if (other := names.setdefault(self.renamed(name), name)) != name:
                raise WeightsError(f"{name} and {other} are names of the same weight: save the model again with one")
        return names

    def record(self, frame: Frame) -> dict[str, Any]:
        """Return what a converted directory says of its model, so that loading it need not guess."""
        texts = ("before_query", "after_query", "before_document", "instruction")  # which other frames lack
        own = {key: value for key, value in asdict(frame).items() if value or key not in texts}
        return {
            "family": self.name,
            "frame": {key: list(value) if isinstance(value, tuple) else value for key, value in own.items()},
            "score_rule": self.score_rule,
            "mapping": self.mapping.name,
        }


def module_at(model: nn.Module, path: str) -> Any:
    """Return the module at a path, such as ``layers.0.attention``."""
    return dict(model.named_modules())[path]


def drop_module(model: nn.Module, path: str) -> None:
    """Take the module at a path out of a model, with its parameters."""
    parent, _, name = path.rpartition(".")
    delattr(module_at(model, parent), name)


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in the place of another."""
    parent, _, name = path.rpartition(".")
    setattr(module_at(model, parent), name, module)


def wanted(title: str, example: str) -> str:
    """Return the beginning of the message that refuses a model."""
    return f"mlx-rerank runs single-label {title} cross-encoders, such as {example}"


def is_classifier(config: Config, wanted: str, model_type: str, stem: str, expected: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is of a model type; refuse all of it but a single-label sequence classifier.

    Args:
        config: of a checkpoint.
        wanted: the beginning of the message.
        model_type: of the family, in transformers.
        stem: with which the names of its classes begin there.
        expected: as for `require_values`.

    Raises:
        UnsupportedModelError: it is another head, has another number of labels, or a value differs.
    """
    if config.get("model_type") != model_type:
        return False
    require_values(config, wanted, expected)  # first: what differs says more than the name of a class
    architectures = config.get("architectures")
    if architectures and architectures != [f"{stem}ForSequenceClassification"]:  # without any, the weights tell
        kind = "an embedding model" if architectures == [f"{stem}Model"] else "another head"
        raise UnsupportedModelError(f"{wanted}; found {kind}: architectures {architectures}")
    require_one_label(config, wanted)
    return True


def require_one_label(config: Config, wanted: str) -> None:
    """Refuse a classifier that does not have exactly one label.

    Raises:
        UnsupportedModelError: it has another number of labels.
    """
    labels = config.get("id2label")
    named = len(labels) if isinstance(labels, dict) else None
    counts = [count for count in (config.get("num_labels"), named) if count is not None]
    for count in counts or [2]:  # the default of transformers
        if count != 1:
            raise UnsupportedModelError(f"{wanted}; found a classifier with {count} labels: {labels}")


def require_values(config: Config, wanted: str, expected: Mapping[str, Any]) -> None:
    """Refuse a model that computes differently from its family here.

    Args:
        config: of a checkpoint.
        wanted: the beginning of the message.
        expected: values by key; a missing key counts as having the value.

    Raises:
        UnsupportedModelError: a value differs.
    """
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise UnsupportedModelError(f"{wanted} with {key} {value!r}; found {config[key]!r}")


def require_special_tokens(tokenizer: Tokenizer, expected: Mapping[str, int]) -> None:
    """Check that a tokenizer has special tokens at the ids that a config.json gives them.

    Raises:
        CheckpointError: a token is missing, or has another id.
    """
    found = {token: tokenizer.token_to_id(token) for token in expected}
    if found != expected:
        raise CheckpointError(f"tokenizer.json has special tokens {found}; config.json says {dict(expected)}")
