"""What programs ask of a CrossEncoder besides scores, and processes that share the pairs of a call."""

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TINY

from mlx_rerank import CrossEncoder
from mlx_rerank.compat.sentence_transformers import pool as pools
from mlx_rerank.errors import DeviceError, InputError

PAIRS = [["panda", f"the bear {i}"] for i in range(7)]


class Here:
    """A process of a pool that is none: what it is asked for is done at once."""

    asked: list[tuple[Any, ...]] = []  # noqa: RUF012  # of all of them, cleared by the fixture

    def __init__(self, *_: object) -> None:
        self.ended = False

    def submit(self, function: Any, *arguments: Any) -> "Future[Any]":
        assert not self.ended
        self.asked.append(arguments)
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    def shutdown(self, cancel_futures: bool) -> None:
        self.ended = cancel_futures


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """What processes are asked for, which are none."""
    monkeypatch.setattr(pools, "ProcessPoolExecutor", Here)
    pools._loaded.cache_clear()
    Here.asked.clear()
    yield Here.asked
    pools._loaded.cache_clear()


def test_attributes(encoder: CrossEncoder) -> None:
    assert encoder.num_labels == encoder.config.num_labels == 1
    assert encoder.config.hidden_size == encoder.config.to_dict()["hidden_size"] == TINY["hidden_size"]
    assert encoder.get_max_seq_length() == encoder.max_length == encoder.max_seq_length
    with pytest.warns(DeprecationWarning, match="`default_activation_function` property was renamed") as caught:
        assert encoder.default_activation_function is encoder.activation_fn
    assert caught[0].filename == __file__


def test_the_tokenizer_is_transformers(tiny: Path) -> None:
    from transformers import PreTrainedTokenizerBase

    encoder = CrossEncoder(tiny)
    assert isinstance(encoder.tokenizer, PreTrainedTokenizerBase)
    assert encoder.tokenizer.model_max_length == encoder.max_length == 64
    encoder.max_length = 20
    assert encoder.tokenizer.model_max_length == 20
    rows = encoder.tokenizer(PAIRS[0][0], PAIRS[0][1], truncation=True, max_length=8)["input_ids"]
    expected = encoder.predict(PAIRS)
    assert len(rows) == 8
    assert (rows[0], rows[-1]) == (encoder.tokenizer.bos_token_id, encoder.tokenizer.eos_token_id)
    np.testing.assert_array_equal(encoder.predict(PAIRS), expected)  # whatever was done with its copy


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["a", "b"], True),
        (("a", "b"), True),
        (np.array(["a", "b"]), True),
        ([["a", "b"]], False),
        (np.array([["a", "b"], ["c", "d"]]), False),
        ([], False),
        (np.array([], dtype=str), False),
    ],
)
def test_one_pair_or_many(encoder: CrossEncoder, inputs: Any, expected: bool) -> None:
    assert encoder.is_singular_input(inputs) is expected
    assert np.ndim(encoder.predict(inputs)) == (0 if expected else 1)


def test_a_batch_of_one_may_come_back_as_a_number(encoder: CrossEncoder) -> None:
    expected = encoder.predict(PAIRS[:1])
    found = encoder.predict(PAIRS[:1], activation_fn=lambda logits: encoder.activation_fn(logits).squeeze())  # pyright: ignore[reportOptionalCall]
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match="it must give one score for each logit"):
        encoder.predict(PAIRS, activation_fn=np.sum)


def test_options_of_one_call(encoder: CrossEncoder, tiny: Path) -> None:
    pairs = [("what is a panda", "the bear is what the panda is")]
    found = encoder.predict(pairs, processing_kwargs={"text": {"max_length": 12, "truncation": True}})
    np.testing.assert_array_equal(found, CrossEncoder(tiny, max_length=12).predict(pairs))
    assert found != encoder.predict(pairs)
    with pytest.warns(UserWarning, match=r"does not use processing_kwargs\['image'\], processing_kwargs\['padding'\]"):
        encoder.predict(pairs, processing_kwargs={"image": {"size": 3}, "text": {"padding": True}})


def test_a_device_that_the_model_is_not_on(encoder: CrossEncoder) -> None:
    other = "mps" if encoder.device == "cpu" else "cpu"
    with pytest.warns(UserWarning, match=f"does not move to device '{other}'|there is no device '{other}'"):
        encoder.predict(PAIRS, device=other)


@pytest.mark.parametrize(("chunk_size", "expected"), [(None, [4, 3]), (2, [2, 2, 2, 1]), (99, [7])])
def test_chunks_go_to_all_processes_in_turn(
    tiny: Path, here: list[tuple[Any, ...]], chunk_size: int | None, expected: list[int]
) -> None:
    encoder = CrossEncoder(tiny, max_length=64, cpu_threads=5, activation_fn=lambda logits: logits * 2)
    pool = encoder.start_multi_process_pool(["cpu", "cpu"])
    found = encoder.predict(PAIRS, pool=pool, chunk_size=chunk_size)
    np.testing.assert_allclose(found, encoder.predict(PAIRS), atol=1e-5)
    assert [len(chunk) for _, chunk, _, _ in here] == expected
    assert {(recipe[1].device, recipe[1].cpu_threads) for recipe, *_ in here} == {("cpu", 2)}
    ranking = encoder.rank("panda", [document for _, document in PAIRS], pool=pool)
    assert [each["corpus_id"] for each in ranking] == np.argsort(-found, kind="stable").tolist()
    assert encoder.predict([], pool=pool).shape == (0,)
    encoder.stop_multi_process_pool(pool)
    with pytest.raises(InputError, match="this pool was stopped"):
        encoder.predict(PAIRS, pool=pool)


def test_a_list_of_devices_is_a_pool_for_one_call(encoder: CrossEncoder, here: list[tuple[Any, ...]]) -> None:
    np.testing.assert_allclose(encoder.predict(PAIRS, device=["cpu"] * 3), encoder.predict(PAIRS), atol=1e-5)
    assert len(here) == 3


def test_what_is_no_pool(encoder: CrossEncoder) -> None:
    for devices in ([], "cpu"):
        with pytest.raises(InputError, match="a pool needs a list of devices"):
            encoder.start_multi_process_pool(devices)
    with pytest.raises(InputError, match="chunk_size must be a whole number of at least 1"):
        encoder.predict(PAIRS, device=["cpu"], chunk_size=0)


def test_real_processes(tiny: Path) -> None:
    encoder = CrossEncoder(tiny, max_length=64)
    pool = encoder.start_multi_process_pool(["cpu"])
    try:
        np.testing.assert_allclose(encoder.predict(PAIRS, pool=pool), encoder.predict(PAIRS), atol=1e-5)
        (process,) = pool._processes[0]._processes.values()
        process.kill()
        with pytest.raises(DeviceError, match=r"a process of the pool has ended .*__main__"):
            encoder.predict(PAIRS, pool=pool)
    finally:
        pool.close()
