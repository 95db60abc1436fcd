"""Ranking without blocking an event loop: many calls at once, an end to those that are cancelled, and time limits."""

import asyncio
import threading
import time

import bounds
import pytest
from devices import busy_device, slowed

from mlx_rerank import Reranker
from mlx_rerank.errors import DeadlineError, InputError

pytestmark = pytest.mark.anyio
DOCUMENTS = ["bear", "the bear", "what is panda", "panda"]


@pytest.mark.numeric
async def test_the_same_as_rank(tiny_reranker: Reranker) -> None:
    found = await tiny_reranker.arank("panda", DOCUMENTS, top_n=2, raw_scores=True)
    assert found == bounds.again(tiny_reranker.rank("panda", DOCUMENTS, top_n=2, raw_scores=True), raw=True)


async def test_hundreds_of_calls_at_once(tiny_reranker: Reranker) -> None:
    expected = [tiny_reranker.rank(f"panda {i}", DOCUMENTS[: 1 + i % 4]) for i in range(20)]
    for ranking in expected:
        bounds.apart([result.score for result in ranking])
    calls = [
        asyncio.create_task(tiny_reranker.arank(f"panda {i % 20}", DOCUMENTS[: 1 + i % 20 % 4])) for i in range(200)
    ]
    most = 0
    while not all(call.done() for call in calls):
        most = max(most, sum(thread.name.startswith("mlx-rerank-async") for thread in threading.enumerate()))
        await asyncio.sleep(0.005)
    for i, call in enumerate(calls):
        found, wanted = call.result(), expected[i % 20]
        assert [result.index for result in found] == [result.index for result in wanted]
        assert [result.score for result in found] == pytest.approx([result.score for result in wanted], abs=1e-5)
    assert most == 4


async def test_the_event_loop_goes_on(tiny_reranker: Reranker) -> None:
    with busy_device():
        call = asyncio.create_task(tiny_reranker.arank("panda", DOCUMENTS))
        start = time.monotonic()
        await asyncio.sleep(0.05)
        assert time.monotonic() - start < 1
        assert not call.done()
    assert len(await call) == 4


async def test_a_task_that_is_cancelled_stops_its_work(
    tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = slowed(tiny_reranker, monkeypatch)
    call = asyncio.create_task(tiny_reranker.arank("panda", [f"bear {i}" for i in range(200)]))
    while not computed:
        await asyncio.sleep(0.001)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await tiny_reranker.arank("panda", ["bear"])  # its turn comes after what is left of the other
    assert len(computed) < 20


async def test_a_call_that_waits_is_dropped(tiny_reranker: Reranker) -> None:
    with busy_device():
        ahead = [asyncio.create_task(tiny_reranker.arank("panda", DOCUMENTS)) for _ in range(4)]
        await asyncio.sleep(0.05)
        read: list[str] = []
        waiting = asyncio.create_task(tiny_reranker.arank("panda", (read.append(text) or text for text in DOCUMENTS)))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await asyncio.gather(*ahead)
    await tiny_reranker.arank("panda", DOCUMENTS)
    assert read == []


async def test_waiting_counts(tiny_reranker: Reranker) -> None:
    with busy_device():
        ahead = [asyncio.create_task(tiny_reranker.arank("panda", DOCUMENTS)) for _ in range(4)]
        await asyncio.sleep(0.05)
        late = asyncio.create_task(tiny_reranker.arank("panda", DOCUMENTS, timeout=0.1))
        await asyncio.sleep(0.3)
    with pytest.raises(DeadlineError, match=r"^0 of 4 pairs were scored in 0.1 s"):
        await late
    await asyncio.gather(*ahead)


async def test_errors(tiny_reranker: Reranker) -> None:
    with pytest.raises(InputError, match="documents must be a list"):
        await tiny_reranker.arank("panda", "bear")
    with pytest.raises(InputError, match="timeout"):
        await tiny_reranker.arank("panda", DOCUMENTS, timeout=0)
