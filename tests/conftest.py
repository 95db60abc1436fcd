"""Fixtures that several test modules share."""

import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import own_blas
import pytest
from checkpoints import BASE, embedded_tokenizer, random_tensors, write_checkpoint, write_mini
from fake_hub import FakeHub
from filelock import FileLock
from hypothesis import settings

from mlx_rerank import Reranker
from mlx_rerank.device.kernels import keep_float32

os.environ |= {"HAYSTACK_TELEMETRY_ENABLED": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # read at import
keep_float32()  # as bounds of float32 are promised

settings.register_profile("any machine", deadline=None)  # how long an example takes says something of the machine alone
settings.load_profile("any machine")

own_blas.install()  # before a test imports torch
gc.disable()  # until all modules are imported: what is imported is there to stay

# The package rerankers imports every library that it has a ranker of, LiteLLM among them, and does without those that
# are missing. The tests use none of its own rankers.
_RANKERS = (
    "transformer_ranker", "rankgpt_rankers", "t5ranker", "colbert_ranker", "rankllm_ranker", "llm_layerwise_ranker",
    "monovlm_ranker", "llm_relevance_filter", "upr", "mxbai_v2", "pylate_ranker",
)  # fmt: skip
_missing: dict[str, Any] = dict.fromkeys(f"rerankers.models.{name}" for name in _RANKERS)
sys.modules.update(_missing)


def pytest_collection_finish() -> None:
    """Look for garbage again."""
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what computes with a larger model than the tiny one, as its fixtures tell."""
    for item in items:
        if not {"mini", "mini_directory", "base_directory"}.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("embedded")


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch, which is not imported at the top of a module: a process that collects the module need not wait."""
    return pytest.importorskip("torch")


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return what imports a scripts in recipes/mini/ by its name."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "recipes" / "mini")  # as Python does for a script
    return importlib.import_module


@pytest.fixture(scope="module", autouse=True)
def _without_garbage() -> None:
    """Collect garbage, and set what is left apart: each collection that unloading asks for took 0.2 s with it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def anyio_backend() -> str:
    """What runs coroutines of tests."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Take SIGINT, which processes started in a shell's background ignore, and their children after them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory of the tiny shape. Read only: copy it before changing it."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="session")
def tiny_reranker(tiny: Path) -> Reranker:
    return Reranker(tiny)


@pytest.fixture(scope="session")
def mini() -> Reranker:
    return Reranker("mini", device="cpu")


def once(factory: pytest.TempPathFactory, name: str, write: Callable[[Path], Path]) -> Path:
    """Return a directory that the first process to ask for it writes, and all of them read."""
    base = factory.getbasetemp()
    target = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(target.with_suffix(".lock")):
        return target if target.is_dir() else write(target.with_suffix(".part")).rename(target)


@pytest.fixture(scope="session")
def mini_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's trained weights as a float32 Hugging Face directory."""
    return once(tmp_path_factory, "mini", write_mini)


@pytest.fixture(scope="session")
def base_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded checkpoint of bge-reranker-base's shape, with the embedded model's tokenizer."""
    return once(
        tmp_path_factory, "base", lambda path: write_checkpoint(path, BASE, random_tensors(BASE), embedded_tokenizer())
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """An empty hub, which the hub library takes for the real one, and an empty place for converted copies."""
    monkeypatch.setenv("MLX_RERANK_CACHE", str(tmp_path / "copies"))
    with FakeHub().serving() as hub:
        for module in ("huggingface_hub.constants", "huggingface_hub.file_download", "huggingface_hub.hf_api"):
            monkeypatch.setattr(f"{module}.ENDPOINT", hub.address, raising=False)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", hub.address, raising=False)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub
