"""Fixtures of the tests that talk to a server."""

from collections.abc import Iterator

import pytest
from servers import Server, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The embedded model's server, which all tests of a run share; on the CPU, as the fixture `mini` is."""
    with serving("--device", "cpu") as server:
        yield server
