"""Fixtures of the tests that talk to a server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import launched, opened
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
