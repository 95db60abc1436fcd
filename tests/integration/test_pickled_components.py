"""Components of the frameworks that are pickled or copied, as their pipelines and workers do it."""

import copy
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import TINY, random_tensors, write_checkpoint

from mlx_rerank import Reranker
from mlx_rerank.errors import ChangedCheckpointError
from mlx_rerank.integrations import haystack, lancedb, langchain, llama_index, rerankers

TEXTS = ["the bear", "panda", "what is", "a panda is the bear"]


def of_langchain(component: Any) -> list[float]:
    from langchain_core.documents import Document

    found = component.compress_documents([Document(page_content=text) for text in TEXTS], "what is panda")
    return [document.metadata["relevance_score"] for document in found]


def of_llama_index(component: Any) -> list[float]:
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    return [node.score for node in component.postprocess_nodes(nodes, query_str="what is panda")]


def of_haystack(component: Any) -> list[float]:
    from haystack import Document

    found = component.run("what is panda", [Document(content=text) for text in TEXTS])
    return [document.score for document in found["documents"]]


def of_lancedb(component: Any) -> list[float]:
    import pyarrow as pa

    return component.rerank_vector("what is panda", pa.table({"text": TEXTS}))["_relevance_score"].to_pylist()


COMPONENTS: dict[str, tuple[Callable[..., Any], Callable[[Any], list[float]]]] = {
    "langchain": (lambda model: langchain.MLXRerank(model=model), of_langchain),
    "langchain's pairs": (
        lambda model: langchain.MLXCrossEncoder(model=model),
        lambda component: component.score([("what is panda", text) for text in TEXTS]),
    ),
    "llama_index": (lambda model: llama_index.MLXRerank(model=model), of_llama_index),
    "haystack": (lambda model: haystack.MLXRanker(str(model)), of_haystack),
    "lancedb": (lancedb.MLXReranker, of_lancedb),
    "rerankers": (
        rerankers.MLXRanker,
        lambda component: [result.score for result in component.rank("what is panda", TEXTS).results],
    ),
}


@pytest.mark.parametrize("loaded", [False, True], ids=["by name", "a Reranker"])
@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_travels(tiny: Path, tiny_reranker: Reranker, name: str, loaded: bool) -> None:
    make, ask = COMPONENTS[name]
    if name == "haystack" and loaded:
        pytest.skip("it takes names alone")
    given = make(tiny_reranker if loaded else str(tiny))
    fresh = [pickle.loads(pickle.dumps(given)), copy.deepcopy(given)]
    expected = ask(given)
    for found in (*fresh, pickle.loads(pickle.dumps(given)), copy.deepcopy(given)):
        assert ask(found) == expected


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_that_travels_does_not_become_another(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make, ask = COMPONENTS[name]
    shutil.copytree(tiny, tmp_path / "model")
    write_checkpoint(tmp_path / "elsewhere" / "model", tensors=random_tensors(TINY, seed=1))
    monkeypatch.chdir(tmp_path)
    given = make("model")
    expected = ask(given)  # a ranker of Haystack loads its model only then
    sent = pickle.dumps(given)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert ask(pickle.loads(sent)) == expected
    write_checkpoint(tmp_path / "model", tensors=random_tensors(TINY, seed=1))
    with pytest.raises(ChangedCheckpointError):
        pickle.loads(sent)
