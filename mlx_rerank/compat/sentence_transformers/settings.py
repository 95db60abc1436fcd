"""What sentence-transformers keeps in a checkpoint besides the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rerank.checkpoints.config import read_object
from mlx_rerank.errors import CheckpointError


@dataclass(frozen=True)
class Settings:
    """How a checkpoint's makers want it to be used.

    Args:
        activation: dotted path of a class; None if there is none.
        prompts: texts that may be put before a query, by name.
        default_prompt_name: of the prompt that is used by default; None for none.
        max_length: tokens that the tokenizer is made for; None if that is not said.
    """

    activation: str | None
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    max_length: float | None

    @classmethod
    def read(cls, directory: Path, config: Mapping[str, Any]) -> "Settings":
        """Read the files of a directory.

        Args:
            directory: of the checkpoint.
            config: its config.json, where versions before 6 put the activation: from 4 on under a key of their own.

        Raises:
            CheckpointError: a file is damaged.
        """
        saved = read_object(directory / "config_sentence_transformers.json") or {}
        if saved.get("model_type") != "CrossEncoder":  # then it is of another use of the model
            saved = {}
        prompts = _entry(saved, "prompts", dict) or {}
        earlier = _entry(config, "sentence_transformers", dict) or {}
        return cls(
            _entry(saved, "activation_fn", str)
            or _entry(earlier, "activation_fn", str)
            or _entry(config, "sbert_ce_default_activation_function", str),
            {name: _entry(prompts, name, str) or "" for name in prompts},
            _entry(saved, "default_prompt_name", str),
            _entry(read_object(directory / "tokenizer_config.json") or {}, "model_max_length", int | float),
        )


def _entry(values: Mapping[str, Any], name: str, kind: Any) -> Any:
    """Return an entry of a kind, or None where there is none."""
    value = values.get(name)
    if value is not None and not isinstance(value, kind):
        raise CheckpointError(f"the checkpoint's {name} is {value!r:.40}, where {kind} is expected")
    return value
