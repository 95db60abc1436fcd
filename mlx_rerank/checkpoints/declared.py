"""Whether a language model was trained to rerank, and with which prompt: declared, never guessed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_rerank.checkpoints import hub
from mlx_rerank.checkpoints.tokenizer import read_tokenizer
from mlx_rerank.errors import InputError
from mlx_rerank.models import TEMPLATES
from mlx_rerank.models.templates import TEMPLATE_KEY, declared


def with_template(config: Mapping[str, Any], directory: Path, template: str | None) -> Mapping[str, Any]:
    """Return a config.json with the template that its model is read with, where one is declared.

    The names of some repositories on the hub declare one too.

    Args:
        config: as it stands; that of a converted directory declares its own.
        directory: of the checkpoint.
        template: that the caller names.

    Raises:
        InputError: there is no such template, the model has another, or it reads none.
        CheckpointError: its tokenizer cannot be read, or lacks the tokens that the template reads.
    """
    own = declared(config).get("name")
    if template is None and own is None:
        repository = hub.repo_of(directory)
        template = next((name for name, of in TEMPLATES.items() if repository in of.repositories), None)
    if template is None or template == own:
        return config
    if template not in TEMPLATES:
        raise InputError(f"template {template!r:.60} is not one of {', '.join(TEMPLATES)}")
    if own is not None:
        raise InputError(f"template {template!r} is not this model's, which config.json says is {own!r}: leave it out")
    if not any(str(name).endswith("ForCausalLM") for name in config.get("architectures") or ()):
        raise InputError(
            f"template {template!r} is of use with a language model alone; this one has architectures "
            f"{config.get('architectures')}: leave it out"
        )
    return {**config, TEMPLATE_KEY: TEMPLATES[template].declare(read_tokenizer(directory))}
