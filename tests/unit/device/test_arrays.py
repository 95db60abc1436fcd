"""A device that fails gives an error to whoever waits for its numbers, and never what its memory held."""

import ast
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from devices import failing
from training_data import make_examples, make_run, steps_of

import mlx_rerank
from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.convert import measured_recipe
from mlx_rerank.device import lanes, operations
from mlx_rerank.device.arrays import telling, to_numpy
from mlx_rerank.device.thread import device_thread
from mlx_rerank.errors import DeviceError
from mlx_rerank.models.encoders.post_norm import Encoder
from mlx_rerank.pairs.batching import Batch
from mlx_rerank.proof import verify

PAIRS = [("what do pandas eat", "bamboo"), ("what do pandas eat", "a panda eats bamboo in the forest")]
Plant = Callable[[], None]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Return what makes every model fail on the device from then on."""

    def call(self: Encoder, input_ids: mx.array, *_: object, **__: object) -> mx.array:
        return failing(tmp_path / "numbers.safetensors", len(input_ids))

    return lambda: monkeypatch.setattr(Encoder, "__call__", call)


def scoring(tiny: Path) -> Callable[[], Any]:
    reranker = Reranker(tiny)
    return lambda: reranker.logits(PAIRS)


def training(tiny: Path) -> Callable[[], Any]:
    run = make_run(tiny)
    (step,) = steps_of(run, make_examples(2))
    return lambda: run.learner.logits(step.parts[0].batches)


def measuring(tiny: Path) -> Callable[[], Any]:
    model = Checkpoint.open(tiny).load(mx.float32, keep_quantized=False)
    return lambda: measured_recipe._logits(model, [{"input_ids": mx.zeros((2, 4), mx.int32)}])


def verifying(tiny: Path) -> Callable[[], Any]:
    engine, batch = Reranker(tiny).engine, Batch(np.zeros((1, 4), np.int32), None)
    return lambda: engine.apply(partial(verify._states, ["embeddings"]), batch)


@pytest.mark.parametrize("prepare", [scoring, training, measuring, verifying])
def test_a_failing_device_is_told(prepare: Callable[[Path], Callable[[], Any]], tiny: Path, plant: Plant) -> None:
    call = prepare(tiny)
    call()
    plant()
    with pytest.raises(DeviceError, match="Unable to read from file"):
        call()


def test_numbers() -> None:
    np.testing.assert_array_equal(to_numpy(mx.arange(3) * 2), [0, 2, 4])
    assert to_numpy(mx.array(1.5, mx.float16)).dtype == np.float16


def test_the_error_says_what_helps(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"Unable to read from file.*token_budget"):
        to_numpy(failing(tmp_path / "a.safetensors", 3))


def test_errors_that_nobody_asked_for_do_not_reach_another_job(tmp_path: Path) -> None:
    """MLX hands an error to whoever asks next, were it for the size of a cache."""

    def work() -> None:
        arrays = [failing(tmp_path / "of no lane.safetensors", 3)]
        lanes.streams().extend(mx.new_stream(mx.cpu) for _ in range(2 - len(lanes.streams())))
        for i, stream in enumerate(lanes.streams()):
            with operations.on(stream):
                arrays.append(failing(tmp_path / f"of lane {i}.safetensors", 3))
        with telling():
            mx.async_eval(arrays)
        to_numpy(arrays[0])

    for _ in range(5):
        with pytest.raises(DeviceError, match="Unable to read from file"):
            device_thread().submit(work).result()
        assert device_thread().submit(mx.clear_cache).result() is None
        assert device_thread().submit(lambda: mx.arange(3).tolist()).result() == [0, 1, 2]


def conversions(code: str) -> list[int]:
    """Return the lines in which numpy is given something that may be an array of MLX's, and no list."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("np.array", "np.asarray")
        and not isinstance(node.args[0], (ast.List, ast.ListComp, ast.Tuple))
    ]


def test_there_is_one_way_from_the_device_to_numpy() -> None:
    root = Path(mlx_rerank.__file__).parent
    for path in root.rglob("*.py"):
        code = path.read_text("utf-8")
        if "import mlx" in code and path != root / "device" / "arrays.py":
            assert conversions(code) == [], f"{path}: use mlx_rerank.device.arrays.to_numpy"
    assert conversions("import mlx.core as mx\nfound = np.array(model(x))") == [2]
