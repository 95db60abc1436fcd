"""Where the routes are, and which of them an address means that somebody has pasted."""

from difflib import get_close_matches
from itertools import takewhile

# The servers whose clients are answered with just what that server sends, and four programs with bodies of their own.
PREFIXES = ("cohere", "jina", "voyage", "tei", "vllm", "infinity", "rag-api", "huggingface", "weaviate", "nvidia")
RERANK_PATHS = ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking", "/v2/rerank", "/api/rerank", "/")
RANKING_PATHS = ("/ranking", "/v1/ranking")
SCORE_PATHS = ("/score", "/v1/score")
EXPLAIN_PATHS = ("/explain", "/v1/explain")
PROBES = ("/.well-known/ready", "/.well-known/live")
_FACTS = ("/health", "/ready", "/info", "/meta", "/models", "/v1/models", "/v1/cluster/auth", "/metrics", *PROBES)
_KNOWN = frozenset((*RERANK_PATHS, *RANKING_PATHS, *SCORE_PATHS, *EXPLAIN_PATHS, *_FACTS, "/openapi.json"))
_VERSIONS = ("v1", "v2", "api")
_OTHER_NAMES = {"reranks": "rerank", "rerankers": "rerank"}  # DashScope's and Ernie's
_NAMES = frozenset(path.rpartition("/")[2] for path in _KNOWN - {"/"}) | _OTHER_NAMES.keys()
_USUAL = "/v1/rerank"
_ALIKE = 0.75  # of two words' letters: `scoer` is `score`, `chat` is not `health`


def prefix_of(path: str) -> str:
    """Return the server that a path names first, or an empty text."""
    first = "".join(path.split("/")[1:2])
    return first if first in PREFIXES else ""


def meant(path: str, method: str) -> str:
    """Return the route that an address means, or the address as it is where that cannot be told.

    A client adds its own path to what somebody has pasted, so that parts of it are there twice, in another version, or
    not at all: the last name counts, and the last version that has it.

    Args:
        path: of the URL.
        method: of the request; only a POST without a name means a ranking.
    """
    prefix, words = _split(path)
    whole = "/" + "/".join(words)
    if whole in _KNOWN:
        return prefix + whole
    names = [word for word in words if word not in _VERSIONS]
    told = _NAMES.issuperset(names) and words[:2] != ["v1", "models"] and (bool(names) or method == "POST")
    route = _route(words) if told else ""
    return prefix + route if route else path


def nearest(path: str) -> str:
    """Return the route whose address is most like one that leads nowhere: a ranking if none is."""
    prefix, words = _split(path[:200])
    alike = [[word] if word in _VERSIONS else get_close_matches(word, _NAMES, n=1, cutoff=_ALIKE) for word in words]
    found = [word for one in alike for word in one]
    route = _route(found) if found else ""
    return prefix + (route or _USUAL)


def _split(path: str) -> tuple[str, list[str]]:
    """Return the first server that a path begins with, wherever its version stands, and the words after it."""
    words = [word.strip().lower() for word in path.split("/") if word.strip()]
    head = list(takewhile(lambda word: word in PREFIXES or word in _VERSIONS, words))
    prefix = next((f"/{word}" for word in head if word in PREFIXES), "")
    return prefix, [word for word in head if word in _VERSIONS] + words[len(head) :]


def _route(words: list[str]) -> str:
    """Return the route of the last name and the last version that has it, or an empty text: `/v1/auth` is none."""
    names = [word for word in words if word not in _VERSIONS]
    name = _OTHER_NAMES.get(names[-1], names[-1]) if names else "rerank"
    versions = [f"/{word}" for word in reversed(words) if word in _VERSIONS]
    return next((found for version in (*versions, "", "/v1") if (found := f"{version}/{name}") in _KNOWN), "")
