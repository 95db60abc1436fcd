"""Values are handed on between threads, requests and callers, so nobody may change one."""

import dataclasses
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlx_rerank

ROOT = Path(mlx_rerank.__file__).parent
RECORDS = {  # what is written down as work goes on, by one owner
    "bench.race.Results", "device.thread._Started", "dtypes.causes.Violation", "dtypes.causes._Fault",
    "scoring.pipeline._Open", "server.scheduler.Job", "server.served.Served", "train.trainer.Since",
}  # fmt: skip


def dataclasses_of(path: Path) -> Iterator[type]:
    """Yield the dataclasses that a file defines."""
    name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    for value in vars(module).values():
        if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == name:
            yield value


FILES = [path for path in sorted(ROOT.rglob("*.py")) if "@dataclass" in path.read_text("utf-8")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_dataclasses_are_frozen(path: Path) -> None:
    for kind in dataclasses_of(path):
        name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("mlx_rerank.")
        if name not in RECORDS:
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(object.__new__(kind), dataclasses.fields(kind)[0].name, None)
