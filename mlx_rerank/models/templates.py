"""Templates: the prompts that language models read as rerankers. A checkpoint must declare which is its own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from mlx_rerank.errors import CheckpointError
from mlx_rerank.pairs.frames import Frame

TEMPLATE_KEY = "mlx_rerank_template"  # of config.json, under which a declared template and its tokens are


@dataclass(frozen=True)
class Template:
    """A prompt, and how its answer is read.

    Args:
        name: that people give.
        prefix: text before the content, tokenised apart.
        content: text with places for {instruction}, {query} and {document}, in that order, tokenised as one; it ends
            with the document.
        suffix: text after the content, tokenised apart.
        instruction: the usual one.
        true_token: whose logit speaks for relevance.
        false_token: whose logit speaks against it.
        repositories: of the hub whose models are read with it, whatever their files say.
    """

    name: str
    prefix: str
    content: str
    suffix: str
    instruction: str
    true_token: str
    false_token: str
    repositories: tuple[str, ...] = ()

    @property
    def marks(self) -> list[str]:
        """Texts by which a chat template with this prompt is known: its task, and what stands before each text."""
        task = max(self.prefix.splitlines(), key=len).partition("<")[0].split('"')[0]
        return [task, *(part for part in re.split(r"\{\w+\}|\n", self.content) if part)]

    def frame(self, tokenizer: Tokenizer, pad: int, hidden: int) -> Frame:
        """Return the frame of this prompt.

        A space before the document is tokenised with it, as it would be in one text.

        Args:
            tokenizer: of the model.
            pad: fills rows.
            hidden: replaces tokens that are hidden.
        """
        start, end = (tokenizer.encode(text, add_special_tokens=False).ids for text in (self.prefix, self.suffix))
        before, _, rest = self.content.partition("{query}")
        between = rest.removesuffix("{document}")
        after = between.rstrip(" ")
        return Frame(
            tuple(start), (), tuple(end), pad, hidden, before_query=before, after_query=after,
            before_document=between[len(after) :], instruction=self.instruction,
        )  # fmt: skip

    def declare(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """Return what config.json says of a model that is read with this prompt, under `TEMPLATE_KEY`.

        Raises:
            CheckpointError: the tokenizer lacks a token.
        """
        found: dict[str, Any] = {"name": self.name}
        for name, token in (("true_token_id", self.true_token), ("false_token_id", self.false_token)):
            if (number := tokenizer.token_to_id(token)) is None:
                raise CheckpointError(f"the tokenizer has no token {token!r}, which the template {self.name!r} reads")
            found[name] = number
        return found


def declared(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a config.json declares of its template; nothing if it declares none.

    Raises:
        CheckpointError: it is no object.
    """
    found = config.get(TEMPLATE_KEY, {})
    if not isinstance(found, Mapping):
        raise CheckpointError(f"config.json holds {found!r:.40} under {TEMPLATE_KEY!r}, not an object")
    return found
