"""Rerank what a LangChain retriever finds, and see what it is worth: pip install 'mlx-rerank[langchain]'.

Also for the first stage and the figures: pip install langchain-classic bm25s ir-measures
"""

import argparse
from typing import Any

import bm25s
from evaluation import load, print_gain
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from mlx_rerank.integrations.langchain import MLXRerank


class BM25Retriever(BaseRetriever):
    """Full-text search. Put the retriever of your vector store in its place."""

    documents: list[Document]
    index: Any
    k: int = 10

    @classmethod
    def from_documents(cls, documents: list[Document]) -> "BM25Retriever":
        """Index the documents' words."""
        index = bm25s.BM25()
        words = bm25s.tokenize([document.page_content for document in documents], show_progress=False)
        index.index(words, show_progress=False)
        return cls(documents=documents, index=index)

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        words = bm25s.tokenize(query, show_progress=False)
        places, _scores = self.index.retrieve(words, k=self.k, show_progress=False)
        return [self.documents[place] for place in places[0]]


def main() -> None:
    """Answer each question from the corpus, without reranking and with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="its name, as for mlx_rerank.Reranker")
    parser.add_argument("--questions", type=int, help="how many to ask; all by default")
    arguments = parser.parse_args()

    passages, questions = load(arguments.questions)
    retriever = BM25Retriever.from_documents(
        [Document(p["text"], id=p["id"], metadata={"paragraph": p["paragraph"]}) for p in passages]
    )
    reranked = ContextualCompressionRetriever(
        base_compressor=MLXRerank(model=arguments.model), base_retriever=retriever
    )

    before, after = {}, {}
    for question in questions:
        before[question["id"]] = [document.id for document in retriever.invoke(question["text"])]
        after[question["id"]] = [document.id for document in reranked.invoke(question["text"])]
    print_gain(before, after, questions)


if __name__ == "__main__":
    main()
