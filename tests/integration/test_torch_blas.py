"""Torch keeps the BLAS that it brings, whichever MLX has."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import log_bindings

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux needs another BLAS")


def importing(how: str) -> str:
    """Return code that imports torch, and prints the BLAS that is loaded."""
    return (
        f"import sys; from mlx_rerank import blas; flags = sys.getdlopenflags(); torch = {how}; x = torch.ones(9, 9)\n"
        "assert sys.getdlopenflags() == flags; torch.linalg.inv(x + torch.eye(9)); print(blas.loaded())"
    )


@linux
def test_torch_keeps_the_blas_that_it_brings(tmp_path: Path) -> None:
    ways = {"blas.import_with_own('torch')": True, "__import__('torch')": False}
    directories = [tmp_path / "own", tmp_path / "plain"]
    with ThreadPoolExecutor(2) as at_once:
        loaded = list(at_once.map(log_bindings, map(importing, ways), directories))
    if "None" in loaded:
        pytest.skip("this machine has no optimised BLAS")
    taken = re.compile(rb"binding file \S*torch\S* .* to \S*lib(openblas|mkl_rt)\S* ")
    for directory, own in zip(directories, ways.values(), strict=True):
        logs = [log.read_bytes() for log in directory.iterdir()]
        assert sum(map(len, logs)) > 1e6
        assert any(map(taken.search, logs)) != own
