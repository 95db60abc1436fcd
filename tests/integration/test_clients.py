"""Client libraries of other makers, unchanged, against a running server."""

import gc
import importlib.util
import json
import os
import pkgutil
import runpy
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from client_libraries import CLIENTS, KEY, QUERY, Client, Row
from servers import Server, serving

from mlx_rerank import Reranker

EXAMPLES = Path(__file__).parents[2] / "examples"
PASSAGES = (EXAMPLES / "passages.jsonl").read_text(encoding="utf-8").splitlines()
TEXTS = [json.loads(line)["text"] for line in PASSAGES[::3]]  # enough to be put in order
QUIET = {
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_PROXY": "127.0.0.1",
}
pytestmark = pytest.mark.filterwarnings(  # at the import of LiteLLM 1.110
    "ignore:Items? .* on TypedDict class .* using the .ReadOnly. qualifier:UserWarning"
)
each = pytest.mark.parametrize("client", CLIENTS, indirect=True)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a client reach this machine only, and fail if it so much as looked up another."""
    sought, lookup, connect = [], socket.getaddrinfo, socket.socket.connect

    def check(host: Any) -> None:
        if host not in ("127.0.0.1", b"127.0.0.1"):
            sought.append(host)
            raise OSError(f"{host} is another host")

    def checked_lookup(host: Any, *arguments: Any, **options: Any) -> Any:
        check(host)
        return lookup(host, *arguments, **options)

    def checked_connect(self: socket.socket, address: Any) -> None:
        check(address[0])
        connect(self, address)

    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(socket, "getaddrinfo", checked_lookup)
    monkeypatch.setattr(socket.socket, "connect", checked_connect)
    yield
    assert set(sought) <= {"huggingface.co"}  # where LiteLLM looks for a config.json, and does without


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Client:
    pytest.importorskip(CLIENTS[request.param].needs)
    return CLIENTS[request.param]


@pytest.fixture(scope="module")
def expected(mini: Reranker) -> list[tuple[int, float]]:
    return [(found.index, found.score) for found in mini.rank(QUERY, TEXTS)]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants a key."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"another\n{KEY}\n", encoding="utf-8")
    with serving("--api-key-file", str(keys)) as server:
        yield server


def check(found: list[Row], expected: list[tuple[int, float]]) -> None:
    """Same order, same scores, and each document with its own index."""
    assert [row[0] for row in found] == [index for index, _ in expected]
    assert [row[1] for row in found] == pytest.approx([score for _, score in expected], abs=1e-4)
    assert all(text in (None, TEXTS[index]) for index, _, text in found)


@each
def test_a_client_ranks_as_the_library_does(client: Client, server: Server, expected: list[tuple[int, float]]) -> None:
    check(client.rank(server.url, TEXTS), expected)
    check(client.rank(server.url, TEXTS, top_n=3), expected[:3])


@each
def test_a_wrong_key_is_an_error(client: Client, guarded: Server, expected: list[tuple[int, float]]) -> None:
    check(client.rank(guarded.url, TEXTS, key=KEY), expected)
    with pytest.raises(pkgutil.resolve_name(client.wrong_key), match=r"send one of the server's keys"):
        client.rank(guarded.url, TEXTS, key="wrong")


@each
def test_no_documents_are_an_error(client: Client, server: Server) -> None:
    if client.empty is None:
        assert client.rank(server.url, []) == []
        return
    with pytest.raises(pkgutil.resolve_name(client.empty), match=r"(documents|texts)` is empty"):
        client.rank(server.url, [])


def test_cohere_tries_again_while_the_queue_is_full(expected: list[tuple[int, float]]) -> None:
    cohere = pytest.importorskip("cohere")
    many = ["panda " * 400 + str(number) for number in range(100)]  # seconds of work
    with (
        serving("--max-queue", "1") as server,
        cohere.ClientV2(KEY, base_url=server.url) as client,
        ThreadPoolExecutor() as pool,
    ):

        def rank(texts: list[str], tries: int) -> list[Row]:
            found = client.rerank(model="mini", query=QUERY, documents=texts, request_options={"max_retries": tries})
            return [(row.index, row.relevance_score, None) for row in found.results]

        busy = pool.submit(rank, many, 5)
        while 'waiting_pairs{model="mini"} 100.0' not in httpx.get(f"{server.url}/metrics").text:
            assert not busy.done()
        with pytest.raises(cohere.TooManyRequestsError) as refused:
            rank(TEXTS, 0)
        assert int(refused.value.headers["retry-after"]) >= 1
        check(rank(TEXTS, 5), expected)
        assert len(busy.result()) == 100


def test_infinity_reads_models_and_health(server: Server) -> None:
    pytest.importorskip("infinity_client")
    from infinity_client import Client
    from infinity_client.api.default import health, models

    with Client(base_url=f"{server.url}/infinity", raise_on_unexpected_status=True) as client:
        assert health.sync(client=client)
        listed = models.sync(client=client)
    assert listed
    assert [model.id for model in listed.data] == ["mini"]


def test_infinity_reads_what_was_wrong_with_a_request(server: Server) -> None:
    pytest.importorskip("infinity_client")
    from infinity_client import Client
    from infinity_client.api.default import rerank
    from infinity_client.models import HTTPValidationError, RerankInput

    query: Any = 5
    with Client(base_url=f"{server.url}/infinity", raise_on_unexpected_status=True) as client:
        refused = rerank.sync(client=client, body=RerankInput(query=query, documents=TEXTS))
    assert isinstance(refused, HTTPValidationError)
    assert refused.detail
    assert "query" in str(refused.detail[0].loc)


PACKAGES = {
    "cohere_client.py": "cohere",
    "voyage_client.py": "voyageai",
    "langchain_client.py": "langchain_cohere",
    "llama_index_client.py": "llama_index",
    "litellm_client.py": "litellm",
}


def test_every_example_is_known_here() -> None:
    assert {path.name for path in (EXAMPLES / "clients").glob("*_client.py")} == set(PACKAGES)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # examples leave it to the process's end
@pytest.mark.parametrize("name", PACKAGES)
def test_an_example_puts_the_right_passage_first(
    name: str, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not importlib.util.find_spec(PACKAGES[name]):
        pytest.skip("not installed")
    monkeypatch.setenv("MLX_RERANK_URL", server.url)
    runpy.run_path(str(EXAMPLES / "clients" / name), run_name="__main__")  # where its library is imported already
    gc.collect()
    assert "bamboo" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_example_of_curl_puts_the_right_passage_first(server: Server) -> None:
    environment = {**os.environ, "MLX_RERANK_URL": server.url}
    command = ["sh", str(EXAMPLES / "clients" / "curl.sh")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, encoding="utf-8")
    assert json.loads(result.stdout)["results"][0]["index"] == 1
