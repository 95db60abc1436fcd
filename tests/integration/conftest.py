"""Fixtures of the tests that talk to a server."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from browsing import launched, opened
from hostile import GOOD, SECRET
from playwright.sync_api import Browser, Page
from servers import Server, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The embedded model's server, which all tests of a run share; on the CPU, as the fixture `mini` is."""
    with serving("--device", "cpu") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with opened(browser, server.url) as page:
        yield page


@pytest.fixture(scope="module")
def two_models(tiny: Path) -> Iterator[Server]:
    with serving("--model", "mini", "--model", f"random={tiny}") as server:
        yield server


@pytest.fixture(scope="module")
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
