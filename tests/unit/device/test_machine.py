"""What is said of a machine and of the wheels that are installed on it."""

import importlib.metadata
import platform
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mlx_rerank.device import machine
from mlx_rerank.device.wheel import wheel_tag


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_ENABLE_TF32", "0")
    monkeypatch.setenv("MLX_RERANK_API_KEY", "secret")
    facts = machine.describe()
    assert facts["system"].endswith(platform.machine())
    assert 1e9 < facts["memory_bytes"] < 1e13
    assert facts["versions"]["mlx"] == importlib.metadata.version("mlx")
    assert facts["wheels"]["mlx"] == wheel_tag("mlx")
    assert facts["environment"]["MLX_ENABLE_TF32"] == "0"
    assert "secret" not in str(facts)


@pytest.mark.parametrize("limit", [0, 57344, None])
def test_a_mac(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"machdep.cpu.brand_string": "Apple M2 Max\n", "iogpu.wired_limit_mb": "" if limit is None else f"{limit}\n"}
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("26.2", ("", "", ""), "arm64"))
    monkeypatch.setattr(subprocess, "run", lambda command, **_: SimpleNamespace(stdout=told[command[-1]]))
    facts = machine.describe()
    assert (facts["chip"], facts["system"]) == ("Apple M2 Max", "macOS 26.2 arm64")
    assert facts["wired_limit_bytes"] == (None if limit is None else limit * 2**20)


def test_the_tag_of_a_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(r"cp3\d+-cp3\d+-\w+", wheel_tag("mlx") or "")
    assert wheel_tag("no-such-package") is None
    record = "Wheel-Version: 1.0\nTag: py3-none-macosx_14_0_arm64\nTag: py3-none-macosx_26_0_arm64\n"
    for text, tags in ((record, "py3-none-macosx_14_0_arm64, py3-none-macosx_26_0_arm64"), (None, None)):
        package = SimpleNamespace(read_text=lambda _, text=text: text)
        monkeypatch.setattr("mlx_rerank.device.wheel.distribution", lambda _, package=package: package)
        assert wheel_tag("mlx-metal") == tags
