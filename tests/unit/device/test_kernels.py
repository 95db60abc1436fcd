"""Whether MLX uses all of the chip, on machines that are made up."""

import os
import platform
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from typer.testing import CliRunner

from mlx_rerank.bench import report
from mlx_rerank.cli import app, describing
from mlx_rerank.device import kernels, wheel
from mlx_rerank.device.kernels import TF32, has_matrix_units, keep_float32, problem
from mlx_rerank.errors import DeviceError
from mlx_rerank.proof import verify

OLD, NEW = "py3-none-macosx_14_0_arm64", "py3-none-macosx_26_0_arm64"
M4, M5 = ("applegpu_g16s", "Apple M4 Max"), ("applegpu_g17s", "Apple M5 Max")


def machine(monkeypatch: pytest.MonkeyPatch, chip: tuple[str, str], macos: str, tag: str | None) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: (macos, ("", "", ""), "arm64"))
    monkeypatch.setattr(mx, "device_info", lambda: {"architecture": chip[0], "device_name": chip[1]})
    monkeypatch.setattr(kernels, "wheel_tag", lambda package: {"mlx-metal": tag}.get(package))


@pytest.mark.parametrize(
    ("chip", "macos", "tag", "words"),
    [
        (M4, "15.6", OLD, None),
        (M4, "26.4", OLD, None),
        (M5, "26.2", NEW, None),
        (M5, "27.0", "py3-none-macosx_27_0_arm64", None),
        (M5, "26.4", None, None),  # built from source
        (M5, "26.2", OLD, r"py3-none-macosx_14_0_arm64.*Apple M5 Max.*--force-reinstall"),
        (M5, "26.4", "py3-none-macosx_15_0_arm64", "macosx_15_0"),
        (M5, "26.1", NEW, "from macOS 26.2 on, and this is 26.1: update macOS"),
        (M5, "26", OLD, "this is 26: update macOS.*--force-reinstall"),
        (M5, "15.7.1", OLD, "this is 15.7.1"),
    ],
)
def test_each_machine(
    chip: tuple[str, str], macos: str, tag: str | None, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, chip, macos, tag)
    if words is None:
        assert problem() is None
        kernels.warn_if_missing()
    else:
        with pytest.warns(RuntimeWarning, match=words):
            kernels.warn_if_missing()


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [("applegpu_g13g", False), ("applegpu_g16d", False), ("applegpu_g17g", True), ("applegpu_g17d", True),
     ("applegpu_g17p", False), ("applegpu_g18p", True), ("applegpu_g18s", True), ("x86_64", False), ("", False)],
)  # fmt: skip
def test_which_chips_have_matrix_units(architecture: str, expected: bool) -> None:
    assert has_matrix_units(architecture) == expected


def test_elsewhere_there_is_nothing_to_say() -> None:
    if sys.platform != "darwin":
        assert problem() is None


@pytest.mark.parametrize("command", [["info"], ["bench", "padding", "--queries", "1"], ["serve", "--install-service"]])
def test_commands_warn(
    command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(kernels, "problem", lambda: "planted")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mlx-rerank", *command])
    monkeypatch.setattr(sys, "executable", "/opt/mlx-rerank/bin/python")  # from which a service may run
    assert CliRunner().invoke(app, command).exit_code == 0
    assert [str(warning.message) for warning in recwarn] == ["mlx-rerank: planted"]


def test_what_is_told(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    monkeypatch.setattr(wheel, "wheel_tag", lambda package: f"tag of {package}")
    expected = {name: f"tag of {name}" for name in ("mlx", "mlx-metal", "mlx-cpu")}
    assert describing.describe(str(tiny))["wheels"] == report.machine()["wheels"] == expected


def test_float32_is_kept_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TF32, "to be put back")
    monkeypatch.delenv(TF32)
    keep_float32()
    assert os.environ[TF32] == "0"
    monkeypatch.setenv(TF32, "1")
    keep_float32()
    assert os.environ[TF32] == "1"


def test_verify_computes_in_float32(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    def load(*_: object, **__: object) -> None:
        raise DeviceError(f"{TF32} is {os.environ.get(TF32)}")

    monkeypatch.setenv(TF32, "to be put back")
    monkeypatch.delenv(TF32)
    monkeypatch.setattr(verify, "require_reference", lambda: None)
    monkeypatch.setattr(verify, "Reranker", load)
    with pytest.raises(DeviceError, match="TF32 is 0"):
        verify.verify(tiny)
