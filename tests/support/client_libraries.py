"""Client libraries of other makers, unchanged, each as one function.

It ranks texts with the client, asks for the documents where it can, and returns what came back. Libraries are imported
when they are called, as some take seconds.
"""

import asyncio
import contextlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

QUERY = "What do giant pandas eat?"
KEY = "sesame"

Row = tuple[int, float, str | None]  # index, score, and the document; None if the client cannot return it
Rank = Callable[..., list[Row]]


def cohere_v1(url: str, texts: list[str], key: str = KEY, top_n: int | None = None) -> list[Row]:
    import cohere

    with cohere.Client(key, base_url=url) as client:
        found = client.rerank(model="mini", query=QUERY, documents=texts, top_n=top_n, return_documents=True)
    assert found.meta
    assert found.meta.api_version
    return [(row.index, row.relevance_score, row.document.text if row.document else "") for row in found.results]


def cohere_v2(url: str, texts: list[str], key: str = KEY, top_n: int | None = None) -> list[Row]:
    import cohere

    with cohere.ClientV2(key, base_url=url) as client:
        found = client.rerank(model="mini", query=QUERY, documents=texts, top_n=top_n)
    assert found.id
    return [(row.index, row.relevance_score, None) for row in found.results]


def cohere_async(url: str, texts: list[str], key: str = KEY, top_n: int | None = None) -> list[Row]:
    import cohere

    async def rank() -> list[Row]:
        async with cohere.AsyncClientV2(key, base_url=url) as client:
            found = await client.rerank(model="mini", query=QUERY, documents=texts, top_n=top_n)
        return [(row.index, row.relevance_score, None) for row in found.results]

    return asyncio.run(rank())


def voyage(path: str) -> Rank:
    def rank(url: str, texts: list[str], key: str = KEY, top_n: int | None = None) -> list[Row]:
        import requests
        import voyageai
        from voyageai.client import Client

        with requests.Session() as session:
            voyageai.requestssession = session  # so that it is closed
            client = Client(key, base_url=url + path)
            found = client.rerank(QUERY, texts, model="rerank-2.5", top_k=top_n)
        assert found.total_tokens > 0
        return [(row.index, row.relevance_score, row.document) for row in found.results]

    return rank


def voyage_async(url: str, texts: list[str], key: str = KEY, top_n: int | None = None) -> list[Row]:
    from voyageai.client_async import AsyncClient

    client = AsyncClient(key, base_url=f"{url}/voyage/v1")
    found = asyncio.run(client.rerank(QUERY, texts, model="rerank-2.5", top_k=top_n))
    return [(row.index, row.relevance_score, row.document) for row in found.results]


def infinity(url: str, texts: list[str], key: str = KEY, top_n: int | None = None) -> list[Row]:
    from infinity_client import AuthenticatedClient
    from infinity_client.api.default import rerank
    from infinity_client.models import RerankInput, ReRankResult

    body = RerankInput(query=QUERY, documents=texts, return_documents=True, model="mini", top_n=top_n)
    with AuthenticatedClient(base_url=f"{url}/infinity", token=key, raise_on_unexpected_status=True) as client:
        found = rerank.sync(client=client, body=body)
    assert isinstance(found, ReRankResult)
    assert found.usage.total_tokens > 0
    return [(row.index, row.relevance_score, row.document or "") for row in found.results]


def litellm(provider: str, path: str = "") -> Rank:
    def rank(url: str, texts: list[str], key: str = KEY, top_n: int | None = None) -> list[Row]:
        import litellm

        options: dict[str, Any] = {"custom_llm_provider": provider, "api_base": url + path, "api_key": key}
        documents: Any = texts
        found: Any = litellm.rerank("mini", QUERY, documents, top_n=top_n, return_documents=True, **options)
        assert found.id
        return [(row["index"], row["relevance_score"], row["document"]["text"]) for row in found.results]

    return rank


def langchain(url: str, texts: list[str], key: str = KEY, top_n: int | None = None) -> list[Row]:
    from langchain_classic.retrievers import ContextualCompressionRetriever
    from langchain_cohere import CohereRerank
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
    from pydantic import SecretStr

    class Everything(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return [Document(text, metadata={"index": index}) for index, text in enumerate(texts)]

    compressor = CohereRerank(model="mini", base_url=url, cohere_api_key=SecretStr(key), top_n=top_n)
    retriever = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=Everything())
    with compressor.client:
        found = retriever.invoke(QUERY)
    return [(row.metadata["index"], row.metadata["relevance_score"], row.page_content) for row in found]


def haystack(module: str, name: str, **options: str) -> Rank:
    """A ranker of Haystack's, behind a retriever in a pipeline."""

    def rank(url: str, texts: list[str], key: str = KEY, top_n: int | None = None) -> list[Row]:
        from haystack import Document, Pipeline
        from haystack.components.retrievers import FilterRetriever
        from haystack.document_stores.in_memory import InMemoryDocumentStore
        from haystack.utils import Secret

        known = {"URL": url, "KEY": Secret.from_token(key)}
        settings = {option: known.get(value, value) for option, value in options.items()}
        ranker = getattr(importlib.import_module(RANKERS + module), name)(top_k=top_n or 100, **settings)
        store, pipeline = InMemoryDocumentStore(), Pipeline()
        store.write_documents([Document(content=text, meta={"index": index}) for index, text in enumerate(texts)])
        pipeline.add_component("retriever", FilterRetriever(store))
        pipeline.add_component("ranker", ranker)
        pipeline.connect("retriever.documents", "ranker.documents")
        ranker.warm_up()
        with ranker._cohere_client if module == "cohere" else contextlib.closing(ranker):
            found = pipeline.run({"retriever": {}, "ranker": {"query": QUERY}})["ranker"]["documents"]
        return [(row.meta["index"], row.score, row.content) for row in found]

    return rank


@dataclass(frozen=True)
class Client:
    """A client, and the errors it raises for a wrong key and for no documents; None if it does not send those."""

    needs: str
    rank: Rank
    wrong_key: str
    empty: str | None


RANKERS = "haystack_integrations.components.rankers."
COHERE = "cohere:UnauthorizedError", "cohere:BadRequestError"
VOYAGE = "voyageai.error:AuthenticationError", "voyageai.error:InvalidRequestError"
INFINITY = "infinity_client.errors:UnexpectedStatus", "infinity_client.errors:UnexpectedStatus"
LITELLM = "litellm:AuthenticationError", "litellm:BadRequestError"
LITELLM_EITHER = "openai:APIError", "openai:APIError"  # connection errors in 1.83, and as LITELLM in 1.110
HAYSTACK = "haystack.core.errors:PipelineRuntimeError"
CLIENTS = {
    "cohere v1": Client("cohere", cohere_v1, *COHERE),
    "cohere v2": Client("cohere", cohere_v2, *COHERE),
    "cohere v2 async": Client("cohere", cohere_async, *COHERE),
    "voyage": Client("voyageai", voyage("/voyage/v1"), *VOYAGE),
    "voyage without prefix": Client("voyageai", voyage("/v1"), *VOYAGE),
    "voyage async": Client("voyageai", voyage_async, *VOYAGE),
    "infinity": Client("infinity_client", infinity, *INFINITY),
    "litellm cohere": Client("litellm", litellm("cohere"), LITELLM_EITHER[0], LITELLM[1]),
    "litellm hosted_vllm": Client("litellm", litellm("hosted_vllm"), *LITELLM),
    "litellm infinity": Client("litellm", litellm("infinity", "/infinity"), *LITELLM_EITHER),
    "litellm jina_ai": Client("litellm", litellm("jina_ai"), *LITELLM_EITHER),
    "litellm huggingface": Client("litellm", litellm("huggingface"), *LITELLM),
    "litellm voyage": Client("litellm", litellm("voyage", "/voyage"), *LITELLM_EITHER),
    "langchain": Client("langchain_cohere", langchain, COHERE[0], None),
    "haystack cohere": Client(
        RANKERS + "cohere",
        haystack("cohere", "CohereRanker", model="mini", api_base_url="URL", api_key="KEY"),
        HAYSTACK,
        HAYSTACK,
    ),
    "haystack vllm": Client(
        RANKERS + "vllm",
        haystack("vllm", "VLLMRanker", model="mini", api_base_url="URL", api_key="KEY"),
        HAYSTACK,
        None,
    ),
    "haystack tei": Client(
        RANKERS + "huggingface_api",
        haystack("huggingface_api", "HuggingFaceTEIRanker", url="URL", token="KEY"),
        HAYSTACK,
        None,
    ),
}
