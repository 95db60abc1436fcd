"""What other servers send: their clients may stop at a field that they do not know.

Source: the public interfaces of Cohere, Jina and Voyage, of text-embeddings-inference, vLLM and infinity.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Peer:
    """The fields of a server's answers.

    Args:
        answer: of a ranking.
        row: of a result.
        usage: of the tokens that were read.
        refusal: of an error.
    """

    answer: frozenset[str]
    row: frozenset[str]
    usage: frozenset[str]
    refusal: frozenset[str]


def _peer(answer: str, usage: str, refusal: str, row: str = "index relevance_score document") -> Peer:
    """Return a row of the table below."""
    return Peer(*(frozenset(names.split()) for names in (answer, row, usage, refusal)))


PEERS: Mapping[str, Peer] = {
    "cohere": _peer("id results meta", "", "message"),
    "jina": _peer("id model results usage", "prompt_tokens total_tokens", "detail"),
    "voyage": _peer("object data model usage", "total_tokens", "detail"),
    "tei": _peer("", "", "error error_type", row="index score text"),
    "vllm": _peer("id model results usage", "prompt_tokens total_tokens", "error"),
    "infinity": _peer("id object created model results usage", "prompt_tokens total_tokens", "error detail"),
}


def as_sent_by(name: str, answer: Any) -> Any:
    """Return an answer without the fields that a server does not send; all of it if there is no such server.

    Args:
        name: of PEERS.
        answer: to a request for a ranking.
    """
    peer = PEERS.get(name)
    if peer is None:
        return answer
    if isinstance(answer, list):
        return [_kept(row, peer.row) for row in answer]
    kept = _kept(answer, peer.answer)
    for rows in kept.keys() & {"results", "data"}:
        kept[rows] = [_kept(row, peer.row) for row in kept[rows]]
    if "usage" in kept:
        kept["usage"] = _kept(kept["usage"], peer.usage)
    return kept


def refused_by(name: str, refusal: dict[str, Any]) -> dict[str, Any]:
    """Return an error without the fields that a server does not send; as `as_sent_by`."""
    return _kept(refusal, PEERS[name].refusal) if name in PEERS else refusal


def _kept(fields: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Return the fields that have one of the names."""
    return {name: value for name, value in fields.items() if name in names}
