"""The optimised BLAS on Linux: found before MLX, warned about once, and no effect elsewhere."""

import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import log_bindings

from mlx_rerank.device import blas

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux needs another BLAS")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_loaded", None)
    monkeypatch.setattr(blas, "_problem", None)
    monkeypatch.delenv(blas.VARIABLE, raising=False)


@linux
def test_none_found_warns_once_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_CANDIDATES", ("libnosuchblas.so.0",))
    monkeypatch.delitem(sys.modules, "mlx.core")
    blas.preload()
    assert blas.loaded() is None
    with pytest.warns(RuntimeWarning, match="no optimised BLAS was found.*apt install libopenblas0.*pip install mkl"):
        blas.warn_if_missing()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        blas.warn_if_missing()


@linux
def test_mlx_imported_first_warns() -> None:
    blas.preload()  # this process has imported MLX long ago
    with pytest.warns(RuntimeWarning, match="import mlx_rerank first"):
        blas.warn_if_missing()


def loaded_with(wanted: str, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Load as a process that was started with MLX_RERANK_BLAS, and has not imported MLX yet."""
    monkeypatch.setenv("MLX_RERANK_BLAS", wanted)
    monkeypatch.delitem(sys.modules, "mlx.core")
    blas.preload()
    return blas.loaded()


@linux
def test_turned_off_nothing_is_loaded_and_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas.ctypes, "CDLL", lambda *_, **__: pytest.fail("loaded a library"))
    assert loaded_with("off", monkeypatch) is None
    blas.warn_if_missing()  # warnings are errors here


@linux
def test_the_one_that_is_named_is_loaded_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    library = SimpleNamespace(cblas_sgemm=None, openblas_set_num_threads=asked.append)
    monkeypatch.setattr(blas.ctypes, "CDLL", lambda name, mode: (asked.append(name), library)[1])
    monkeypatch.setattr(blas, "_library", None)
    assert loaded_with("/opt/mine/libblas.so", monkeypatch) == "/opt/mine/libblas.so"
    blas.set_threads(3)
    assert asked == ["/opt/mine/libblas.so", 3]
    blas.warn_if_missing()


@linux
@pytest.mark.parametrize(
    ("wanted", "why"), [("/no/such/libblas.so", "No such file"), ("libc.so.6", "undefined symbol: cblas_sgemm")]
)
def test_one_that_does_not_serve_is_named_with_the_reason(
    wanted: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loaded_with(wanted, monkeypatch) is None
    with pytest.warns(RuntimeWarning, match=f"MLX_RERANK_BLAS is {wanted}, .*{why}.*name another.*'off'.*unset it"):
        blas.warn_if_missing()


@linux
def test_an_empty_name_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_CANDIDATES", ("libnosuchblas.so.0",))
    assert loaded_with("", monkeypatch) is None
    with pytest.warns(RuntimeWarning, match="no optimised BLAS was found"):
        blas.warn_if_missing()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(blas.ctypes, "CDLL", lambda *_, **__: pytest.fail("loaded a library"))
    blas.preload()
    blas.warn_if_missing()
    assert blas.loaded() is None


@linux
def test_it_is_loaded_when_the_package_is_imported_and_mlx_uses_it_unless_turned_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import mlx_rerank; from mlx_rerank import blas; import mlx.core as mx\n"
        "mx.eval(mx.ones((99, 99)) @ mx.ones((99, 99))); print(blas.loaded())"
    )
    # not by its speed, which depends on the kernel and on what else the machine does
    taken = re.compile(rb"binding file \S*libmlx\S* .* to \S*lib(openblas|mkl_rt)\S* .*cblas_sgemm")
    loaded = log_bindings(code, tmp_path / "on")
    if loaded == "None":
        pytest.skip("this machine has no optimised BLAS")
    monkeypatch.setenv("MLX_RERANK_BLAS", "off")
    assert log_bindings(code, tmp_path / "off") == "None"
    for name, used in (("on", True), ("off", False)):
        logs = [log.read_bytes() for log in (tmp_path / name).iterdir()]
        assert any(b"cblas_sgemm" in log for log in logs)
        assert any(map(taken.search, logs)) == used


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(ImportError):
        blas.import_with_own("no_such_module")
