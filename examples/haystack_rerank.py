"""Rerank what a Haystack retriever finds, and see what it is worth: pip install 'mlx-rerank[haystack]'.

Also for the figures: pip install ir-measures
"""

import argparse

from evaluation import load, print_gain
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from mlx_rerank.integrations.haystack import MLXRanker


def search(store: InMemoryDocumentStore, model: str) -> Pipeline:
    """Return a pipeline: full-text search for ten documents, which are then ranked."""
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=10))
    pipeline.add_component("ranker", MLXRanker(model))
    pipeline.connect("retriever.documents", "ranker.documents")
    return pipeline


def main() -> None:
    """Answer each question from the corpus, without reranking and with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="its name, as for mlx_rerank.Reranker")
    parser.add_argument("--questions", type=int, help="how many to ask; all by default")
    arguments = parser.parse_args()

    passages, questions = load(arguments.questions)
    store = InMemoryDocumentStore()
    store.write_documents(
        [Document(id=p["id"], content=p["text"], meta={"paragraph": p["paragraph"]}) for p in passages]
    )
    pipeline = search(store, arguments.model)

    before, after = {}, {}
    for question in questions:
        asked = {"query": question["text"]}
        found = pipeline.run({"retriever": asked, "ranker": asked}, include_outputs_from={"retriever"})
        before[question["id"]] = [document.id for document in found["retriever"]["documents"]]
        after[question["id"]] = [document.id for document in found["ranker"]["documents"]]
    print_gain(before, after, questions)


if __name__ == "__main__":
    main()
