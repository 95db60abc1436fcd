"""Heads that sentence-transformers keeps apart from a model, one folder for each module, as modules.json lists them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx

from mlx_rerank.checkpoints import weights
from mlx_rerank.checkpoints.config import is_converted, read_object, read_objects
from mlx_rerank.checkpoints.files import CONFIG_FILE, MODULES_FILE, SENTENCE_TRANSFORMERS_FILE, WEIGHTS_FILE
from mlx_rerank.errors import UnsupportedModelError
from mlx_rerank.models.family import MODULES_KEY

T = TypeVar("T")
_FOLDER = re.compile(r"[0-9]+_\w+")  # as sentence-transformers names them; a path could lead anywhere


def with_modules(config: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Return a config.json with what the files of the head's modules say, where there are any.

    A converted directory has that in its config.json, so its files are not asked.

    Raises:
        CheckpointError: a file is damaged.
        UnsupportedModelError: a module is in a folder of another name than sentence-transformers gives it.
    """
    if is_converted(config):
        return dict(config)
    found = []
    for module in _head(directory):
        path = str(module.get("path"))
        if not _FOLDER.fullmatch(path):
            raise UnsupportedModelError(
                f"{directory}: modules.json has {module.get('type')!r} in {path!r}; mlx-rerank reads modules in "
                "folders such as '2_Dense' alone: save the model with its save_pretrained()"
            )
        found.append({**(read_object(directory / path / CONFIG_FILE) or {}), "type": module.get("type"), "path": path})
    rest = {key: value for key, value in config.items() if key != MODULES_KEY}
    return rest | {MODULES_KEY: found} if found else rest


def shapes_of_modules(directory: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the modules' tensors, each by its folder and its name; only headers are read.

    Raises:
        CheckpointError: a file is damaged.
    """
    return _named(directory, lambda path: weights.stored_shapes([path]))


def tensors_of_modules(directory: Path) -> dict[str, mx.array]:
    """Return the modules' tensors, lazy, by the same names; raises what `shapes_of_modules` does."""
    return _named(directory, weights.read_safetensors)


def _named(directory: Path, read: Callable[[Path], Mapping[str, T]]) -> dict[str, T]:
    """Return what is read of each module's weights, by its folder and its name."""
    folders = [str(module.get("path")) for module in _head(directory)]
    files = {folder: directory / folder / WEIGHTS_FILE for folder in folders if _FOLDER.fullmatch(folder)}
    return {f"{folder}/{n}": one for folder, path in files.items() if path.is_file() for n, one in read(path).items()}


def _head(directory: Path) -> list[dict[str, Any]]:
    """Return the modules after the transformer, if the next one pools what it gives; else none.

    Others are refused with the settings (`Settings.read`).
    """
    modules = read_objects(directory / MODULES_FILE)
    if len(modules) < 2 or modules[0].get("path") or not str(modules[1].get("type")).endswith(".Pooling"):
        return []
    saved = read_object(directory / SENTENCE_TRANSFORMERS_FILE) or {}
    return modules[1:] if saved.get("model_type") == "CrossEncoder" else []
