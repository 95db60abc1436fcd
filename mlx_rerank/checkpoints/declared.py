"""Whether a language model was trained to rerank, and with which prompt: declared, never guessed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_rerank.checkpoints import hub
from mlx_rerank.checkpoints.config import entry, read_object, read_objects
from mlx_rerank.checkpoints.files import CHAT_TEMPLATE_FILE, LOGIT_SCORE_FILE
from mlx_rerank.checkpoints.reading import read_text
from mlx_rerank.checkpoints.tokenizer import read_tokenizer
from mlx_rerank.errors import InputError, UnsupportedModelError
from mlx_rerank.models import TEMPLATES
from mlx_rerank.models.templates import TEMPLATE_KEY, declared

LOGIT_SCORE = "LogitScore"  # sentence-transformers' module that reads the score
_MOST = 2**20  # bytes of a chat template


def with_template(config: Mapping[str, Any], directory: Path, template: str | None) -> Mapping[str, Any]:
    """Return a config.json with the template that its model is read with, where one is declared.

    The names of some repositories on the hub declare one too.

    Args:
        config: as it stands; that of a converted directory declares its own.
        directory: of the checkpoint.
        template: that the caller names.

    Raises:
        InputError: there is no such template, the model has another, or it reads none.
        UnsupportedModelError: its files say that it reranks with another prompt, or other tokens.
        CheckpointError: its tokenizer cannot be read, or lacks the tokens that the template reads.
    """
    own = declared(config).get("name")
    if template is None and own is None:
        repository = hub.repo_of(directory)
        template = next((name for name, of in TEMPLATES.items() if repository in of.repositories), None)
        template = template or _of_sentence_transformers(directory)
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
    found = TEMPLATES[template].declare(read_tokenizer(directory))
    _require_same_tokens(directory, found)
    return {**config, TEMPLATE_KEY: found | _instruction(directory)}


def _of_sentence_transformers(directory: Path) -> str | None:
    """Return the template whose texts a chat template has, where the files say that a score is read from two logits.

    Raises:
        UnsupportedModelError: they say so, and the prompt is another.
    """
    modules = read_objects(directory / "modules.json")
    if not any(str(module.get("type")).rpartition(".")[2] == LOGIT_SCORE for module in modules):
        return None
    chat = directory / CHAT_TEMPLATE_FILE
    text = read_text(chat, _MOST) if chat.is_file() else ""
    for name, template in TEMPLATES.items():
        if all(mark in text for mark in template.marks):
            return name
    raise UnsupportedModelError(
        f"{directory}: modules.json lists {LOGIT_SCORE}, and {CHAT_TEMPLATE_FILE} has no prompt that mlx-rerank knows: "
        f"if it is one of {', '.join(TEMPLATES)}, say so by template=... or --template"
    )


def _require_same_tokens(directory: Path, found: Mapping[str, Any]) -> None:
    """Refuse a model whose files read other tokens than its template."""
    saved = read_object(directory / LOGIT_SCORE_FILE)
    for name in ("true_token_id", "false_token_id"):
        if saved is not None and saved.get(name) != found[name]:
            raise UnsupportedModelError(
                f"{directory / LOGIT_SCORE_FILE} has {name} {saved.get(name)!r}; the template {found['name']!r} reads "
                f"{found[name]}: correct it, or remove it if the template is right"
            )


def _instruction(directory: Path) -> dict[str, str]:
    """Return the instruction that sentence-transformers would give by default, if there is one."""
    saved = read_object(directory / "config_sentence_transformers.json") or {}
    prompt = entry(saved, "prompts", dict, {}).get(entry(saved, "default_prompt_name", str, ""))
    return {"instruction": prompt} if isinstance(prompt, str) and prompt else {}
