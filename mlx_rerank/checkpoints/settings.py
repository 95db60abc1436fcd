"""What transformers and sentence-transformers save beside a model: how its makers want it to be used."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rerank.checkpoints.config import entry, read_object, read_objects
from mlx_rerank.checkpoints.declared import LOGIT_SCORE
from mlx_rerank.errors import CheckpointError, UnsupportedModelError
from mlx_rerank.models.family import MODULES_KEY
from mlx_rerank.models.templates import declared
from mlx_rerank.pairs.limits import Side

DEFAULT_MAX_LENGTH = 512
_GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")  # classes that read any tokenizer.json
_TRANSFORMER = re.compile(r"sentence_transformers\.[\w.]*Transformer")


@dataclass(frozen=True)
class Settings:
    """How a checkpoint's makers want it to be used.

    Args:
        activation: dotted path of a class; None if there is none.
        prompts: texts that may be put before a query, by name.
        default_prompt_name: of the prompt that is used by default; None for none.
        max_length: tokens that the tokenizer is made for; None if that is not said.
        truncation_side: where texts are cut; None if that is not said.
        float32_modules: that compute in float32, whatever the dtype.
        padding_side: where rows are padded.
        other_tokenizer: class of transformers' that the texts were tokenised by, if it is of another family.
    """

    activation: str | None
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    max_length: float | None
    truncation_side: Side | None
    float32_modules: tuple[str, ...]
    padding_side: str
    other_tokenizer: str | None

    @classmethod
    def read(cls, directory: Path, config: Mapping[str, Any], *tokenizer_classes: str) -> "Settings":
        """Read the files of a directory.

        Args:
            directory: of the checkpoint.
            config: its config.json, where versions before 6 of sentence-transformers put the activation: from 4 on
                under a key of their own.
            tokenizer_classes: the family's in transformers, its usual one first.

        Raises:
            CheckpointError: a file is damaged.
            UnsupportedModelError: sentence-transformers would compute more than the model.
        """
        saved = read_object(directory / "config_sentence_transformers.json") or {}
        if saved.get("model_type") != "CrossEncoder":  # then it is of another use of the model
            saved = {}
        reranks = bool(declared(config))  # a language model, whose prompt is its instruction
        earlier = entry(config, "sentence_transformers", dict, {})
        tokenizer = read_object(directory / "tokenizer_config.json") or {}
        length = entry(tokenizer, "model_max_length" if "model_max_length" in tokenizer else "max_len", int | float)
        if saved and (MODULES_KEY in config or _has_modules(directory, scored=reranks)):
            length = _of_the_module(directory, length)
        side = entry(tokenizer, "truncation_side", str)
        if side not in (None, "right", "left"):
            raise CheckpointError(f"tokenizer_config.json has truncation_side {side!r}: write 'right' or 'left' there")
        prompts = {} if reranks else entry(saved, "prompts", dict, {})
        kind = entry(tokenizer, "tokenizer_class", str, tokenizer_classes[0])
        activation = entry(saved, "activation_fn", str)
        if activation is None and "activation_fn" in earlier:  # where null is the default, whatever follows
            activation = entry(earlier, "activation_fn", str)
        elif activation is None:
            activation = entry(config, "sbert_ce_default_activation_function", str)
        return cls(
            activation,
            {name: entry(prompts, name, str, "") for name in prompts},
            None if reranks else entry(saved, "default_prompt_name", str),
            length,
            side,
            tuple(entry(saved, "keep_in_fp32_modules", list, [])),
            entry(tokenizer, "padding_side", str, "right"),
            None if kind.removesuffix("Fast") in (*tokenizer_classes, *_GENERIC) else kind,
        )

    def length(self, longest: int) -> int:
        """Return the most tokens of a pair that its makers want to be read: at most the `longest` of the model."""
        return longest if self.max_length is None else int(min(longest, self.max_length))

    def usual_length(self, longest: int, usual: int = DEFAULT_MAX_LENGTH) -> int:
        """Return the most tokens of a pair that are read where nobody says: as `length`, but at most the usual."""
        return min(usual, self.length(longest))

    @property
    def remarks(self) -> Iterator[str]:
        """What a Reranker does otherwise, in sentences."""
        if self.prompts.get(self.default_prompt_name or ""):
            yield (
                f"the checkpoint's default prompt {self.default_prompt_name!r} is put before queries by CrossEncoder "
                f"alone: elsewhere, put {self.prompts[str(self.default_prompt_name)]!r:.80} before them yourself"
            )
        if self.padding_side != "right":
            yield (
                f"the checkpoint's padding_side {self.padding_side!r} has no effect: no score depends on padding here"
            )
        if self.other_tokenizer is not None:
            yield (
                f"the checkpoint's tokenizer_class {self.other_tokenizer!r} has no effect: texts are tokenised as "
                "tokenizer.json says"
            )


def _has_modules(directory: Path, *, scored: bool) -> bool:
    """Tell whether there is a modules.json; refuse one that lists more than a transformer at the top.

    Args:
        directory: of the checkpoint.
        scored: whether a module may follow that reads a score from a language model's logits.
    """
    modules = read_objects(directory / "modules.json")
    found = [(str(module.get("type")), module.get("path")) for module in modules]
    if scored and len(found) == 2 and found[1][0].rpartition(".")[2] == LOGIT_SCORE:
        found.pop()
    if found and not (len(found) == 1 and _TRANSFORMER.fullmatch(found[0][0]) and not found[0][1]):
        listed = ", ".join(f"{kind!r} in {path!r}" for kind, path in found)
        raise UnsupportedModelError(
            f"{directory}: modules.json lists {listed}; mlx-rerank runs cross-encoders of one Transformer in '': save "
            "the classifier alone, with its save_pretrained()"
        )
    return bool(found)


def _of_the_module(directory: Path, length: float | None) -> float | None:
    """Return the length that sentence_bert_config.json gives, or else the tokenizer's; refuse all else that counts."""
    module = read_object(directory / "sentence_bert_config.json") or {}
    for name in (
        "do_lower_case",
        "processing_kwargs",
        "processor_kwargs",
        "tokenizer_args",
        "config_kwargs",
        "config_args",
    ):
        if module.get(name):
            raise UnsupportedModelError(
                f"sentence_bert_config.json has {name} {module[name]!r}, which mlx-rerank does not read: save the "
                "model with these settings in tokenizer.json, tokenizer_config.json and config.json"
            )
    own = entry(module, "max_seq_length", int | float)
    return length if own is None else own
