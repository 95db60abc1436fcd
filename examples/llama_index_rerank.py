"""Rerank what a LlamaIndex retriever finds: pip install 'mlx-rerank[llama-index]' bm25s ir-measures."""

import argparse
from typing import Any

import bm25s
from evaluation import load, print_gain
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from mlx_rerank.integrations.llama_index import MLXRerank


class BM25Retriever(BaseRetriever):
    """Finds nodes by their words. Put the retriever of your own index in its place."""

    def __init__(self, nodes: list[TextNode], top_k: int) -> None:
        super().__init__()
        self.index, self.nodes, self.top_k = bm25s.BM25(), nodes, top_k
        self.index.index(self._words([node.text for node in nodes]), show_progress=False)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        places, scores = self.index.retrieve(self._words([query_bundle.query_str]), k=self.top_k, show_progress=False)
        return [NodeWithScore(node=self.nodes[i], score=score) for i, score in zip(places[0], scores[0], strict=True)]

    @staticmethod
    def _words(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, show_progress=False)


def main() -> None:
    """Index the corpus, and ask it all questions with and without the reranker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="a model's name, as for mlx_rerank.Reranker")
    parser.add_argument("--questions", type=int, help="how many of them to ask; all if left out")
    arguments = parser.parse_args()

    passages, questions = load(arguments.questions)
    retriever = BM25Retriever([TextNode(id_=p["id"], text=p["text"]) for p in passages], top_k=10)
    # In a query engine: RetrieverQueryEngine.from_args(retriever, llm=..., node_postprocessors=[reranker])
    reranker = MLXRerank(model=arguments.model)

    found, reranked = {}, {}
    for question in questions:
        nodes = retriever.retrieve(question["text"])
        best = reranker.postprocess_nodes(nodes, query_str=question["text"])
        found[question["id"]] = [node.node_id for node in nodes]
        reranked[question["id"]] = [node.node_id for node in best]
    print_gain(found, reranked, questions)


if __name__ == "__main__":
    main()
