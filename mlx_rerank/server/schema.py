"""What travels over the wire: the requests of all clients in one permissive form.

Source: the public interfaces of Cohere, Jina and Voyage, of text-embeddings-inference, infinity, vLLM and llama-server.
"""

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


def _a_document(value: Any) -> Any:
    """Refuse what is no document, in words of ours: a union's own errors name its members."""
    if not isinstance(value, (str, dict)):
        raise ValueError(f"must be a text, or an object with one, not {_kind(value)}")
    return value


def _a_text_or_texts(value: Any) -> Any:
    """Refuse what is neither; as `_a_document`."""
    wrong = [item for item in (value if isinstance(value, list) else [value]) if not isinstance(item, str)][:1]
    if wrong:
        raise ValueError(f"must be a text or a list of texts, and has {_kind(wrong[0])}")
    return value


def _nothing(value: Any) -> None:
    """Refuse a field that would change scores, and that these models cannot heed, unless it says nothing."""
    if value not in (None, "", [], {}):
        raise ValueError("is not supported, as these models read a query and a document alone: leave it out")


def _in_small_letters(value: Any) -> Any:
    """Return a word as vLLM writes it; TEI begins it with a capital."""
    return value.lower() if isinstance(value, str) else value


def _kind(value: Any) -> str:
    """Return what JSON calls a value."""
    names = {type(None): "null", bool: "a boolean", list: "a list", dict: "an object", str: "a text"}
    return names.get(type(value), "a number")


Text = Annotated[str, StringConstraints(strict=True)]
Flag = Annotated[bool, BeforeValidator(_no_number)]
DocumentFields = dict[str, Any]  # JSON already; those that nobody reads are not looked at
_FIRST_ERROR = _FirstError()
Texts = Annotated[list[Text], _FIRST_ERROR]
Document = Annotated[Text | DocumentFields, BeforeValidator(_a_document)]
TextOrTexts = Annotated[Text | Texts, BeforeValidator(_a_text_or_texts)]
Unsupported = Annotated[None, BeforeValidator(_nothing)]
Side = Annotated[Literal["left", "right"], BeforeValidator(_in_small_letters)]
_SOME: dict[str, JsonValue] = {"minItems": 1}  # in the OpenAPI document alone: an empty list has a status of its own


class Request(BaseModel):
    """Fields that all requests share; unknown ones are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: str | None = Field(None, description="A name of /v1/models; the default model if none or unknown.")
    raw_scores: Flag | None = Field(None, description="Logits instead of scores in 0..1.")
    use_activation: Flag | None = Field(None, description="false is raw_scores: true.")
    activation: Flag | None = Field(None, description="The same, as vLLM called it before.")
    softmax: Flag | None = Field(None, description="The same, as vLLM called it at first.")
    truncate: Flag | None = Field(None, description="false refuses texts that are too long instead of cutting them.")
    truncation: Flag | None = Field(None, description="The same for Voyage's clients.")
    truncation_direction: Side | None = Field(None, description="Where texts that are too long are cut.")
    truncation_side: Side | None = Field(None, description="The same for vLLM's clients.")
    truncate_prompt_tokens: int | None = Field(None, ge=-1, description="Most tokens of a pair; -1 for the server's.")
    long_documents: Literal["truncate", "windows", "error"] | None = Field(
        None, description="What becomes of a document that does not fit: as the server was started if none."
    )
    max_tokens_per_query: int | None = Field(None, ge=0, description="Most tokens of a query; 0 for no limit.")
    max_tokens_per_doc: int | None = Field(None, ge=0, description="Most tokens of a document; 0 for no limit.")
    max_chunks_per_doc: int | None = Field(None, ge=0, description="Most windows of a document; 0 for no limit.")
    overlap_tokens: int | None = Field(None, ge=0, description="Tokens that two windows of a document share.")
    add_special_tokens: Literal[True] | None = Field(None, description="Every pair has them.")
    instruction: Unsupported = None
    instruct: Unsupported = None
    prompt: Unsupported = None
    prompt_name: Unsupported = None
    chat_template: Unsupported = None
    chat_template_kwargs: Unsupported = None
    score_template: Unsupported = None

    @property
    def raw(self) -> bool:
        """Whether logits are wanted."""
        activations = (self.use_activation, self.activation, self.softmax)
        return bool(self.raw_scores) or next((flag for flag in activations if flag is not None), True) is False

    @property
    def may_cut(self) -> bool:
        """Whether texts that are too long may be cut."""
        return self.truncate is not False and self.truncation is not False


class RerankRequest(Request):
    """A query and the documents to rank."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["documents"]}, {"required": ["texts"]}]})

    query: Text = Field(description="What is asked.")
    documents: Annotated[list[Document], _FIRST_ERROR] | None = Field(
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

    text_1: TextOrTexts = Field(
        description="Queries, or one; also called queries, query or data_1.",
        validation_alias=AliasChoices("text_1", "queries", "query", "data_1"),
    )
    text_2: TextOrTexts = Field(
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


def _as_list(texts: str | list[str]) -> list[str]:
    """Return one text or several as a list."""
    return [texts] if isinstance(texts, str) else texts


FIELDS = frozenset(
    name
    for model in (RerankRequest, ScoreRequest, ExplainRequest)
    for field, about in model.model_fields.items()
    for name in getattr(about.validation_alias, "choices", (field,))
)  # all names that a request may have and that are read
