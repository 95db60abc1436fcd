"""What travels over the wire: the requests of all clients in one permissive form.

Source: the public interfaces of Cohere, Jina and Voyage, of text-embeddings-inference, infinity, vLLM and llama-server.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, FailFast, Field, JsonValue, StringConstraints

from mlx_rerank.scoring.occlusion import MAX_PASSES


class _FirstError(FailFast):
    """Stops at the first error of a list: a million of them would fill the memory. Unions need it hashable."""

    def __hash__(self) -> int:
        """Return the same for all, as they are equal."""
        return hash(type(self))


def _no_number(value: Any) -> Any:
    """Refuse 0 and 1 for true and false, which pydantic takes; "true" stays allowed, as some clients write it."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError("must be true or false, not a number")
    return value


Text = Annotated[str, StringConstraints(strict=True)]
Flag = Annotated[bool, BeforeValidator(_no_number)]
DocumentFields = dict[str, Any]  # JSON already; those that nobody reads are not looked at
_FIRST_ERROR = _FirstError()
Texts = Annotated[list[Text], _FIRST_ERROR]
_SOME: dict[str, JsonValue] = {"minItems": 1}  # in the OpenAPI document alone: an empty list has a status of its own


class Request(BaseModel):
    """Fields that all requests share; unknown ones are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: str | None = Field(None, description="A name of /v1/models; the default model if none or unknown.")
    raw_scores: Flag | None = Field(None, description="Logits instead of scores in 0..1.")
    use_activation: Flag | None = Field(None, description="false is raw_scores: true.")
    truncate: Flag | None = Field(None, description="false refuses texts that are too long instead of cutting them.")
    truncation: Flag | None = Field(None, description="The same for Voyage's clients.")
    truncation_direction: str | None = Field(None, description="Only right: the end of a text is cut.")
    truncate_prompt_tokens: int | None = Field(None, ge=-1, description="Most tokens of a pair; -1 for the server's.")
    long_documents: Literal["truncate", "windows", "error"] | None = Field(
        None, description="What becomes of a document that does not fit: as the server was started if none."
    )

    @property
    def raw(self) -> bool:
        """Whether logits are wanted."""
        return bool(self.raw_scores) or self.use_activation is False

    @property
    def may_cut(self) -> bool:
        """Whether texts that are too long may be cut."""
        return self.truncate is not False and self.truncation is not False


class RerankRequest(Request):
    """A query and the documents to rank."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["documents"]}, {"required": ["texts"]}]})

    query: Text = Field(description="What is asked.")
    documents: Annotated[list[Text | DocumentFields], _FIRST_ERROR] | None = Field(
        None, description="Texts, or objects with `text`, `content` or the rank_fields.", json_schema_extra=_SOME
    )
    texts: Texts | None = Field(None, description="Instead of documents, for TEI's clients.", json_schema_extra=_SOME)
    top_n: int | None = Field(None, description="How many to return; all if none, 0, -1 or more than there are.")
    top_k: int | None = Field(None, description="The same; it also selects Voyage's shape.")
    return_documents: Flag | None = Field(None, description="Return each document with its score.")
    return_text: Flag | None = Field(None, description="The same for TEI's clients.")
    rank_fields: Annotated[list[str], _FIRST_ERROR] | None = Field(
        None, max_length=64, description="Fields of documents that are read, in this order."
    )
    max_tokens_per_doc: int | None = Field(None, ge=1, description="Most tokens of a document.")

    @property
    def limit(self) -> int | None:
        """How many results are wanted; all if None."""
        wanted = self.top_n if self.top_n is not None else self.top_k
        return wanted if wanted and wanted > 0 else None

    @property
    def given(self) -> list[str] | list[str | dict[str, Any]]:
        """The documents, however they are called."""
        return (self.documents or []) if self.texts is None else self.texts


class ScoreRequest(Request):
    """Pairs to score: two lists of one length, or one text with each of a list."""

    text_1: Text | Texts = Field(
        description="Queries, or one; also called queries, query or data_1.",
        validation_alias=AliasChoices("text_1", "queries", "query", "data_1"),
    )
    text_2: Text | Texts = Field(
        description="Documents, or one; also called documents, items or data_2.",
        validation_alias=AliasChoices("text_2", "documents", "items", "data_2"),
    )

    @property
    def sides(self) -> tuple[list[str], list[str]]:
        """Queries and documents, as given."""
        return _as_list(self.text_1), _as_list(self.text_2)


class ExplainRequest(Request):
    """A query and a document, of whose words the weights are wanted."""

    query: Text = Field(description="What is asked.")
    document: Text
    max_passes: int = Field(
        MAX_PASSES, ge=2, le=1024, description="Most times that the pair is computed with something hidden."
    )


def text_of(document: str | Mapping[str, Any], fields: list[str] | None) -> str | None:
    """Return the text of a document that is to be read; None where it has none.

    Args:
        document: a text, or an object.
        fields: those of an object that are read, joined by line feeds; `text`, or else `content`, if None.
    """
    if isinstance(document, str):
        return document
    names = (
        list(dict.fromkeys(fields))
        if fields
        else [name for name in ("text", "content") if document.get(name) is not None][:1]
    )
    texts = [_as_text(document[name]) for name in names if document.get(name) is not None]
    return "\n".join(map(str, texts)) if texts and None not in texts else None


def _as_list(texts: str | list[str]) -> list[str]:
    """Return one text or several as a list."""
    return [texts] if isinstance(texts, str) else texts


def _as_text(value: Any) -> str | None:
    """Return a field's value as a text: parts of a message are joined, as clients of chat models send them."""
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in value]
        return " ".join(map(str, parts)) if parts and all(isinstance(part, str) for part in parts) else None
    return str(value) if isinstance(value, (str, int, float)) else None
