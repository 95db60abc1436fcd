"""Costly bodies: read in a process of its own, or here where it fails."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from bodies import BODY

from mlx_rerank.errors import RefusedError
from mlx_rerank.server import reader, strict_json
from mlx_rerank.server.reader import Reader
from server.conftest import Connect

pytestmark = pytest.mark.anyio
LONG = {"query": "bär" * 30_000, "documents": ["a", {"text": "b", "n": [1.5, None]}], "unread": [[]] * 9}
READ = {**LONG, "unread": True}


@pytest.fixture
def one() -> Iterator[Reader]:
    """A reader of two fields."""
    found = Reader(["query", "documents"])
    yield found
    found.close()


def bytes_of(value: Any) -> bytes:
    """Return a body."""
    return json.dumps(value).encode()


async def test_long_bodies_and_those_of_many_values_are_read_elsewhere(
    one: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strict_json, "read", None)
    assert await one.read(bytes_of(LONG), 10) == READ
    assert await one.read(bytes_of({"query": "a", "unread": [{}] * 5000}), 9999) == {"query": "a", "unread": True}


async def test_short_bodies_start_no_process(one: Reader) -> None:
    assert await one.read(bytes_of({"query": "a", "x": []}), 10) == {"query": "a", "x": True}
    assert one.process is None


@pytest.mark.parametrize(
    ("body", "status"), [(b"[" * 70_000, 400), (b"[" * 500_000, 413), (bytes_of({"documents": ["b"] * 9999}), 422)]
)
async def test_refusals_come_back(one: Reader, body: bytes, status: int) -> None:
    with pytest.raises(RefusedError) as refused:
        await one.read(body, 10)
    assert refused.value.status == status
    assert one.process is not None
    assert one.process.poll() is None


async def test_a_killed_process_costs_no_answer(one: Reader) -> None:
    assert await one.read(bytes_of(LONG), 10) == READ
    assert one.process is not None
    one.process.kill()
    one.process.wait()
    assert await one.read(bytes_of(LONG), 10) == READ  # read here
    assert one.process is None
    assert await one.read(bytes_of(LONG), 10) == READ
    assert one.process.poll() is None  # another one


async def test_where_none_can_be_started_bodies_are_read_here(one: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader.sys, "executable", "/nowhere/python")
    assert await one.read(bytes_of(LONG), 10) == READ


async def test_the_process_ends_with_its_reader(one: Reader) -> None:
    await one.read(bytes_of(LONG), 10)
    process = one.process
    assert process is not None
    one.close()
    assert process.poll() is not None


async def test_a_request_is_answered_the_same_however_long_its_body_is(connect: Connect) -> None:
    async with connect() as (client, _):
        short, long = [
            (await client.post("/rerank", json=BODY | {"unread": unread})).json()["results"]
            for unread in ("", "bear" * 20_000)
        ]
    assert short == long


async def test_fields_of_documents_that_nobody_reads_come_back_as_they_were(connect: Connect) -> None:
    document = {"text": "bear", "tags": [1, {"a": None}], "vector": [0.1] * 500}
    async with connect() as (client, _):
        body = BODY | {"documents": [document], "return_documents": True}
        (row,) = (await client.post("/rerank", json=body)).json()["results"]
    assert row["document"] == document
