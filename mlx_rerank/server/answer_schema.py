"""The answers of each shape, as the OpenAPI document describes them."""

from typing import Any

from pydantic import BaseModel, Field, JsonValue

DocumentFields = dict[str, Any]


class Weight(BaseModel):
    """A word, or a part of several."""

    start: int = Field(ge=0, description="Place of its first character in the text.")
    end: int = Field(ge=0, description="The place after its last one.")
    weight: float = Field(description="How much the logit falls without it.")
    part: bool = Field(description="Whether it was weighed as a whole, and not word by word.")


class Explanation(BaseModel):
    """Which words carried a score."""

    id: str
    object: str
    created: int
    model: str
    score: float
    logit: float
    query: list[Weight]
    document: list[Weight]
    truncated_tokens: int = Field(ge=0)
    span: list[int] = Field(description="Characters of the document that were read, or those of its best window.")


class Result(BaseModel):
    """A document of a ranking."""

    index: int = Field(ge=0, description="Its place in the request.")
    relevance_score: float
    document: str | DocumentFields | None = Field(None, description="Left out unless it was asked for.")
    tokens: int = Field(ge=0, description="Tokens of the pair that were read.")
    truncated_tokens: int = Field(ge=0, description="Tokens of query and document that were not.")
    share_read: float = Field(ge=0, le=1, description="Of the document's tokens.")
    span: list[int] = Field(description="Where the characters of its text begin and end that the score is of.")


class Usage(BaseModel):
    """Tokens that were read."""

    prompt_tokens: int
    completion_tokens: int = 0
    total_tokens: int


class RerankAnswer(BaseModel):
    """A ranking, best first."""

    id: str
    object: str
    created: int
    model: str
    results: list[Result]
    usage: Usage
    meta: dict[str, JsonValue]


class VoyageAnswer(BaseModel):
    """The same in Voyage's shape."""

    object: str
    data: list[Result]
    model: str
    usage: Usage


class TeiResult(BaseModel):
    """A document of a ranking in TEI's shape."""

    index: int = Field(ge=0)
    score: float
    text: str | None = Field(None, description="Left out unless it was asked for.")
    truncated_tokens: int = Field(ge=0)
    span: list[int]


class Score(BaseModel):
    """The score of a pair."""

    index: int = Field(ge=0)
    object: str
    score: float
    truncated_tokens: int = Field(ge=0)


class ScoreAnswer(BaseModel):
    """Scores in the order of the request."""

    id: str
    object: str
    created: int
    model: str
    data: list[Score]
    usage: Usage


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str


class Error(BaseModel):
    """An error, for clients of every kind but TEI's."""

    error: ErrorDetail
    message: str
    detail: str | list[dict[str, JsonValue]]


class TeiError(BaseModel):
    """An error in TEI's shape."""

    error: str
    error_type: str
