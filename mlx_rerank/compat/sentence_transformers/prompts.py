"""Texts that are put before a query, by name."""

from collections.abc import Mapping

from mlx_rerank.compat.arguments import options_named
from mlx_rerank.compat.warning import warn
from mlx_rerank.errors import InputError


def all_prompts(saved: Mapping[str, str], given: Mapping[str, str] | None) -> dict[str, str]:
    """Return the prompts of a checkpoint and a caller's own, which outweigh them unless they are None.

    Raises:
        InputError: the caller's are no mapping of texts.
    """
    own = options_named("prompts", given)
    for name, text in own.items():
        if text is not None and not isinstance(text, str):
            raise InputError(f"the prompt {name!r} must be a text, not {text!r}")
    return dict.fromkeys(own, "") | dict(saved) | {name: text for name, text in own.items() if text is not None}


def chosen_prompt(prompts: Mapping[str, str], default_name: str | None, prompt: str | None, name: str | None) -> str:
    """Return what to put before a query.

    Args:
        prompts: by name.
        default_name: of the prompt that is used if neither of the following is given; none if None.
        prompt: a text.
        name: of a prompt.

    Raises:
        InputError: there is no prompt of that name, or the prompt is no text.
    """
    if prompt is not None:
        if not isinstance(prompt, str):
            raise InputError(f"prompt must be a text or None, not {prompt!r}")
        if name is not None:
            warn("both a prompt and a prompt_name were given: the prompt is used")
        return prompt
    name = default_name if name is None else name
    if name is not None and name not in prompts:
        raise InputError(f"there is no prompt named {name!r}: it is one of {sorted(prompts)}, or pass prompt=...")
    return "" if name is None else prompts[name]
