"""Devices by torch's names, and options by name."""

import mlx.core as mx
import pytest

from mlx_rerank.compat.arguments import device_named, options_named
from mlx_rerank.errors import InputError

GPUS = ["mps", "cuda", "cuda:0", "gpu", "xpu:1", 0, "0"]


def on_a_machine_with(monkeypatch: pytest.MonkeyPatch, kind: mx.DeviceType) -> None:
    monkeypatch.setattr("mlx_rerank.compat.arguments.parse_device", lambda _: mx.Device(kind))


@pytest.mark.parametrize("name", [None, "cpu", "cpu:0"])
def test_a_cpu_or_whatever_there_is(name: str | None) -> None:
    assert device_named(name) == (None if name is None else "cpu")


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, name: object) -> None:
    on_a_machine_with(monkeypatch, mx.gpu)
    assert device_named(name) is None


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_where_there_is_none(monkeypatch: pytest.MonkeyPatch, name: object) -> None:
    on_a_machine_with(monkeypatch, mx.cpu)
    with pytest.warns(UserWarning, match=f"there is no device '{name}' here: computing on the CPU") as caught:
        assert device_named(name) is None
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ["", "cpus", "tpu", "nonsense", True, -1, 1.5])
def test_what_is_no_device(name: object) -> None:
    with pytest.raises(InputError, match="is not 'cpu', a number, or one of mps, cuda"):
        device_named(name)


def test_options() -> None:
    given = {"a": 1}
    own = options_named("model_kwargs", given)
    assert (own, own is given) == (given, False)
    assert options_named("model_kwargs", None) == {}
    for wrong in ("", 0, [], False, "dtype"):
        with pytest.raises(InputError, match=r"model_kwargs must be a dict or None, not "):
            options_named("model_kwargs", wrong)  # pyright: ignore[reportArgumentType]
