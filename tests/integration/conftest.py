"""Fixtures of the tests that talk to a server."""

from collections.abc import Iterator

import pytest
from servers import Server, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The embedded model's server with its defaults, which all tests of a run share."""
    with serving() as server:
        yield server
