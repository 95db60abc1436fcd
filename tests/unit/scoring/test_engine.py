"""The engine: how far it runs ahead of the device, and what it has to do with a model's weights."""

import threading
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from devices import busy_device

from mlx_rerank import Reranker
from mlx_rerank.checkpoints import mapped
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.convert import convert
from mlx_rerank.pairs.batching import Batch
from mlx_rerank.scoring import engine as engine_module
from mlx_rerank.scoring.engine import _AHEAD

ROW = np.array([[0, 5, 2, 2, 6, 2]], np.int32)


def test_a_few_groups_are_handed_over_before_the_first_is_done(tiny_reranker: Reranker) -> None:
    taken, enough = [], threading.Event()

    def groups() -> Iterator[list[Batch]]:
        for i in range(3 * _AHEAD):
            taken.append(i)
            if len(taken) == _AHEAD:
                enough.set()
            yield [Batch(ROW)]

    results, first = tiny_reranker.engine.run(groups()), []
    with busy_device():
        caller = threading.Thread(target=lambda: first.append((next(results), len(taken))))
        caller.start()
        ahead = enough.wait(10)
    caller.join()
    assert ahead
    assert first[0][1] == _AHEAD
    assert len(list(results)) == 3 * _AHEAD - 1


def test_an_answer_does_not_wait_for_the_next_batch(tiny_reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, gate, rows, opened = tiny_reranker.engine, threading.Event(), [1, 2], []
    forward = engine._forward

    def slow(*arrays: np.ndarray | None) -> mx.array:
        if rows.pop(0) == 2:
            opened.append(gate.wait(10))
        return forward(*arrays)

    monkeypatch.setattr(engine, "_forward", slow)
    results = engine.run([[Batch(ROW)], [Batch(ROW)]])
    first = next(results)
    gate.set()
    np.testing.assert_array_equal(next(results), first)
    assert opened == [True]


def test_weights_are_read_again_when_nothing_runs(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of what ran would reach the one who reads."""
    engine, other = (Reranker(tiny, device="cpu").engine for _ in range(2))
    events, load, to_numpy, gate = [], engine._load, engine_module.to_numpy, threading.Event()
    monkeypatch.setattr(engine, "_load", lambda: (events.append("read"), load())[1])
    monkeypatch.setattr(
        engine_module, "to_numpy", lambda array: (gate.wait(10), events.append("finished"), to_numpy(array))[2]
    )
    engine.unload()
    under_way = other._submit([Batch(ROW)])
    queued = engine._submit([Batch(ROW)])
    gate.set()
    np.testing.assert_array_equal(queued.result(10), under_way.result(10))
    assert events == ["finished", "read", "finished"]


def test_tokens_are_counted_without_padding(tiny: Path) -> None:
    engine = Reranker(tiny, device="cpu").engine
    mask = np.array([[True] * 6, [True] * 4 + [False] * 2])
    list(engine.run([[Batch(np.concatenate([ROW, ROW]), mask)]]))
    assert engine.tokens == 10
    list(engine.run([[Batch(ROW)]]))
    assert engine.tokens == 16


def test_a_function_is_applied_on_the_models_device(tiny_reranker: Reranker) -> None:
    logits = tiny_reranker.engine.apply(lambda model, inputs: np.array(model(**inputs).astype(mx.float32)), Batch(ROW))
    (expected,) = tiny_reranker.engine.run([[Batch(ROW)]])
    np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize("embeddings", ["resident", "mapped"])
def test_weights_go_and_come_back(tiny: Path, embeddings: str) -> None:
    engine = Reranker(tiny, device="cpu", embeddings=embeddings).engine
    assert engine.loaded
    assert engine.embeddings == embeddings
    ((expected,), table) = next(engine.run([[Batch(ROW)]])), engine._loaded()[1]
    assert (table is not None) == (embeddings == "mapped")
    engine.unload()
    assert not engine.loaded
    assert next(engine.run([[Batch(ROW)]])) == expected
    assert engine.loaded


def test_embeddings_are_mapped_by_the_size_they_have_in_memory(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU packed weights are unpacked."""
    packed = convert(tiny, tmp_path / "packed", embeddings=Quantization(64, 4, "affine"))
    monkeypatch.setattr(mapped, "MAPPED_ABOVE", 120 * 64 * 4 - 1)
    assert Reranker(packed, dtype="float32", device="cpu").embeddings == "mapped"
    monkeypatch.setattr(mapped, "MAPPED_ABOVE", 120 * 64 * 4)
    assert Reranker(packed, dtype="float32", device="cpu").embeddings == "resident"
