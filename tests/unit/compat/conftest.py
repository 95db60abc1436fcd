"""Fixtures of the tests of other libraries' interfaces."""

import json
import shutil
from pathlib import Path

import pytest

from mlx_rerank import CrossEncoder


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> CrossEncoder:
    return CrossEncoder(str(tiny), max_length=64)


@pytest.fixture
def checkpoint(tiny: Path, tmp_path: Path):
    """Make a copy of the tiny checkpoint with more files or more in its config.json."""

    def make(config: dict | None = None, **files: object) -> Path:
        directory = shutil.copytree(tiny, tmp_path / "copy")
        whole = json.loads((tiny / "config.json").read_text()) | (config or {})
        for name, value in {"config": whole, **files}.items():
            (directory / f"{name}.json").write_text(json.dumps(value))
        return directory

    return make
