"""How each client is answered: by the route it asks, by the fields it sends, and in which shape."""

from dataclasses import replace

import pytest

from mlx_rerank.errors import RefusedError
from mlx_rerank.scoring.explanation import Explanation, Highlight
from mlx_rerank.server.dialects import Dialect, Ranked, Shape, dialect_of, explanation, ranking, refusal, scores

COMMON, TEI = Dialect(Shape.COMMON), Dialect(Shape.TEI, as_text=True)
VOYAGE = Dialect(Shape.VOYAGE, as_text=True, return_documents=True)
USUAL = ("query", "documents", "model")


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        ("/rerank", USUAL, COMMON),
        ("/v1/rerank", USUAL, COMMON),
        ("/v2/rerank", USUAL, replace(COMMON, version="2")),
        ("/cohere/v1/rerank", USUAL, replace(COMMON, peer="cohere")),
        ("/cohere/v2/rerank", USUAL, replace(COMMON, peer="cohere", version="2")),
        ("/cohere/rerank", (*USUAL, "top_k", "truncation"), replace(COMMON, peer="cohere")),
        ("/jina/v1/rerank", (*USUAL, "top_k"), replace(COMMON, peer="jina", return_documents=True)),
        ("/vllm/rerank", (*USUAL, "truncation"), replace(COMMON, peer="vllm", return_documents=True)),
        ("/infinity/rerank", USUAL, replace(COMMON, peer="infinity", as_text=True, itemised=True)),
        ("/api/rerank", USUAL, replace(COMMON, as_text=True)),
        ("/voyage/v1/rerank", USUAL, replace(VOYAGE, peer="voyage")),
        ("/voyage/v1/rerank", (*USUAL, "top_n"), replace(VOYAGE, peer="voyage")),
        ("/rerank", (*USUAL, "top_k", "top_n"), COMMON),
        ("/rerank", (*USUAL, "truncation", "top_n"), COMMON),
        ("/", USUAL, COMMON),
        ("/", ("query", "documents", "top_n"), COMMON),
        ("/", ("query", "documents", "top_k"), replace(VOYAGE, return_documents=False)),
        ("/", (), TEI),
        ("/rerank", (*USUAL, "top_k"), replace(VOYAGE, return_documents=False)),
        ("/v1/rerank", (*USUAL, "truncation"), replace(VOYAGE, return_documents=False)),
        ("/", ("query", "texts"), TEI),
        ("/rerank", ("query", "texts"), TEI),
        ("/cohere/rerank", ("query", "texts"), replace(COMMON, peer="cohere")),
        ("/voyage/rerank", ("query", "texts"), replace(VOYAGE, peer="voyage")),
        ("/tei/rerank", ("query", "texts"), replace(TEI, peer="tei")),
        ("/tei/rerank", ("query", "documents"), replace(TEI, peer="tei")),
        ("/tei/rerank", (), replace(TEI, peer="tei")),
        ("/score", (), COMMON),
        ("/elsewhere", (), COMMON),
    ],
)
def test_the_dialect_of_a_request(path: str, fields: tuple[str, ...], expected: Dialect) -> None:
    nulls = dict.fromkeys(("top_k", "truncation", "texts", "top_n"))  # are not there
    assert dialect_of(path, nulls | dict.fromkeys(fields, "panda")) == expected


@pytest.fixture
def rows() -> list[Ranked]:
    facts = {"tokens": 9, "truncated_tokens": 2, "share_read": 0.75, "span": [0, 4]}
    return [
        Ranked(2, 0.75, {"content": "bear", "id": 7}, "bear", **facts),
        Ranked(0, 0.25, "a bear", "a bear", **facts),
    ]


@pytest.mark.parametrize("documents", [False, True])
def test_rankings_in_the_common_shape(rows: list[Ranked], documents: bool) -> None:
    found = ranking(replace(COMMON, version="2"), "m", rows, 30, documents=documents)
    assert (found["model"], found["object"], found["id"][:7]) == ("m", "rerank", "rerank-")
    assert found["meta"]["api_version"] == {"version": "2"}
    assert found["usage"] == {"prompt_tokens": 30, "completion_tokens": 0, "total_tokens": 30}
    assert [(row["index"], row["relevance_score"]) for row in found["results"]] == [(2, 0.75), (0, 0.25)]
    expected = [{"content": "bear", "id": 7, "text": "bear"}, {"text": "a bear"}] if documents else [None, None]
    assert [row.get("document") for row in found["results"]] == expected
    again = ranking(COMMON, "m", rows, 30, documents=documents)
    assert again["id"] != found["id"]
    assert again["meta"]["api_version"] == {"version": "1"}


@pytest.mark.parametrize("documents", [False, True])
def test_rankings_in_the_shape_of_voyage(rows: list[Ranked], documents: bool) -> None:
    found = ranking(VOYAGE, "m", rows, 30, documents=documents)
    assert found.keys() == {"object", "data", "model", "usage"}
    assert (found["object"], found["model"], found["usage"]["total_tokens"]) == ("list", "m", 30)
    assert [row.get("document") for row in found["data"]] == (["bear", "a bear"] if documents else [None, None])


@pytest.mark.parametrize("documents", [False, True])
def test_rankings_in_the_shape_of_tei(rows: list[Ranked], documents: bool) -> None:
    found = ranking(TEI, "m", rows, 30, documents=documents)
    assert [(row["index"], row["score"]) for row in found] == [(2, 0.75), (0, 0.25)]
    assert [row.get("text") for row in found] == (["bear", "a bear"] if documents else [None, None])


def test_a_text_of_a_documents_own_is_kept(rows: list[Ranked]) -> None:
    """What was read may be other fields."""
    own = replace(rows[0], document={"text": "own", "title": "read"}, text="read")
    (found,) = ranking(COMMON, "m", [own], 5, documents=True)["results"]
    assert found["document"] == {"text": "own", "title": "read"}
    (found,) = ranking(replace(COMMON, as_text=True), "m", [own], 5, documents=True)["results"]
    assert found["document"] == "read"


def test_scores_in_order() -> None:
    found = scores(COMMON, "m", [0.5, 0.25], [0, 3], 12)
    assert (found["object"], found["model"], found["id"][:6]) == ("list", "m", "score-")
    assert [(row["index"], row["object"], row["score"]) for row in found["data"]] == [
        (0, "score", 0.5),
        (1, "score", 0.25),
    ]
    assert [row["truncated_tokens"] for row in found["data"]] == [0, 3]
    assert found["usage"] == {"prompt_tokens": 12, "completion_tokens": 0, "total_tokens": 12}


def test_explanations() -> None:
    highlight = Highlight(0, 4, 0.5)
    found = explanation("m", Explanation("q", "bear", 0.75, 1.1, (), (highlight,), 3, (0, 4)))
    assert (found["object"], found["id"][:8], found["score"], found["logit"]) == ("explanation", "explain-", 0.75, 1.1)
    assert (found["query"], found["document"]) == ([], [{"start": 0, "end": 4, "weight": 0.5, "part": False}])
    assert (found["truncated_tokens"], found["span"]) == (3, [0, 4])


@pytest.mark.parametrize(
    ("status", "kind", "of_tei"),
    [
        (400, "invalid_request_error", "Validation"),
        (401, "authentication_error", "Validation"),
        (403, "permission_error", "Validation"),
        (404, "not_found_error", "Validation"),
        (422, "invalid_request_error", "Validation"),
        (429, "rate_limit_error", "Overloaded"),
        (499, "invalid_request_error", "Validation"),
        (500, "server_error", "Backend"),
        (503, "server_error", "Unhealthy"),
        (504, "server_error", "Backend"),
    ],
)
def test_types_of_refusals(status: int, kind: str, of_tei: str) -> None:
    error = RefusedError(status, "word", "why", param="query")
    found = refusal(COMMON, error)
    assert found["error"] == {"message": "why", "type": kind, "param": "query", "code": "word"}
    assert (found["message"], found["detail"]) == ("why", "why")
    assert refusal(TEI, error) == {"error": "why", "error_type": of_tei}
    assert refusal(TEI, RefusedError(status, "empty", "why"))["error_type"] == "Empty"


@pytest.mark.parametrize("param", ["query", None])
def test_details_of_refusals_for_clients_of_infinity(param: str | None) -> None:
    itemised = replace(COMMON, itemised=True)
    found = refusal(itemised, RefusedError(422, "word", "why", param=param))
    assert found["detail"] == [{"loc": ["body", param or ""], "msg": "why", "type": "word"}]
    for status in (400, 423, 500):
        assert refusal(itemised, RefusedError(status, "word", "why", param=param))["detail"] == "why"
