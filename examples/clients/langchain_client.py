"""Rank a LangChain retriever's documents: pip install langchain-classic langchain-cohere."""

import os

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_cohere import CohereRerank
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

URL = os.environ.get("MLX_RERANK_URL", "http://127.0.0.1:8787")
QUERY = "What do giant pandas eat?"
PASSAGES = [
    "Paris has been the capital of France since the Middle Ages.",
    "The giant panda eats almost nothing but bamboo.",
    "La batería envejece más deprisa cuando hace calor.",
]


class Everything(BaseRetriever):
    """Finds all passages. Put the retriever of your vector store in its place."""

    def _get_relevant_documents(self, query: str, **_: object) -> list[Document]:
        return [Document(passage) for passage in PASSAGES]


ranker = CohereRerank(model="mini", base_url=URL, cohere_api_key="none", top_n=2)
retriever = ContextualCompressionRetriever(base_compressor=ranker, base_retriever=Everything())
for document in retriever.invoke(QUERY):
    print(f"{document.metadata['relevance_score']:.3f}  {document.page_content}")
