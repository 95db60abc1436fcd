"""PyTorch that keeps its own BLAS, imported when a test first asks for it: that takes over two seconds of a process."""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

from mlx_rerank.device import blas


class TorchFinder(MetaPathFinder, Loader):
    """Imports torch with its own BLAS, whoever imports it: imported plainly, it is slow ever after."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        there = fullname == "torch" and PathFinder.find_spec(fullname, path, target)
        return spec_from_loader(fullname, self) if there else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        sys.meta_path.remove(self)
        module = blas.import_with_own(spec.name)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # it has run already, by this one, which the import has replaced since


def install() -> None:
    """Have torch be found so from now on."""
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, TorchFinder())
