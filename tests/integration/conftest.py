"""Fixtures of the tests that talk to a server."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from browsing import launched, opened
from checkpoints import TINY, embedded_tokenizer, random_tensors, write_checkpoint
from hostile import GOOD, SECRET
from playwright.sync_api import Browser, Page
from servers import Server, serving

LIGHT = TINY | {  # the embedded model's vocabulary and length
    "vocab_size": 64000,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 514,
}


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The embedded model's server, which all tests of a run share; on the CPU, as the fixture `mini` is."""
    with serving("--device", "cpu") as server:
        yield server


@pytest.fixture(scope="session")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded checkpoint that reads texts as the embedded model does, and computes next to nothing."""
    return write_checkpoint(
        tmp_path_factory.mktemp("checkpoints") / "light", LIGHT, random_tensors(LIGHT), embedded_tokenizer()
    )


@pytest.fixture(scope="session")
def light_server(light: Path) -> Iterator[Server]:
    """A server for tests to which any scores will do: it takes its model for the embedded one."""
    with serving("--model", f"mini={light}") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, light_server: Server) -> Iterator[Page]:
    with opened(browser, light_server.url) as page:
        yield page


@pytest.fixture(scope="session")
def two_models(light: Path, tiny: Path) -> Iterator[Server]:
    with serving("--model", f"mini={light}", "--model", f"random={tiny}") as server:
        yield server


@pytest.fixture(scope="session")
def strict() -> Iterator[Server]:
    """A server with low limits."""
    limits = ["--max-body", "1M", "--max-documents", "50", "--max-characters", "10000", "--body-timeout", "1"]
    with serving(*limits, "--unknown-model", "404") as server:
        yield server
        answer = httpx.post(f"{server.url}/rerank", json=GOOD)
        assert answer.status_code == 200  # after all that
        assert [row["index"] for row in answer.json()["results"]] == [0, 1]
        assert not [line for line in server.log if "Traceback" in line]
        assert not [line for line in server.log if SECRET in line]
