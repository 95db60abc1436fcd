"""Rerank with the interface of AnswerDotAI's rerankers: pip install 'mlx-rerank[rerankers]' bm25s ir-measures."""

import argparse

import bm25s
from evaluation import load, print_gain
from rerankers import Document

from mlx_rerank.integrations.rerankers import MLXRanker


def main() -> None:
    """Find passages by their words, and rank them again, for all questions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="a model's name, as for mlx_rerank.Reranker")
    parser.add_argument("--questions", type=int, help="how many of them to ask; all if left out")
    arguments = parser.parse_args()

    passages, questions = load(arguments.questions)
    documents = [Document(p["text"], doc_id=p["id"], metadata={"paragraph": p["paragraph"]}) for p in passages]
    index = bm25s.BM25()
    index.index(bm25s.tokenize([p["text"] for p in passages], show_progress=False), show_progress=False)
    ranker = MLXRanker(arguments.model)

    found, reranked = {}, {}
    for question in questions:
        words = bm25s.tokenize(question["text"], show_progress=False)
        places, _ = index.retrieve(words, k=10, show_progress=False)
        candidates = [documents[i] for i in places[0]]
        results = ranker.rank(question["text"], candidates)
        found[question["id"]] = [document.doc_id for document in candidates]
        reranked[question["id"]] = [result.doc_id for result in results]
    print_gain(found, reranked, questions)


if __name__ == "__main__":
    main()
