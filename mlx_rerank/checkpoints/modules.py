"""Heads that sentence-transformers keeps apart from a model, one folder for each module, as modules.json lists them."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlx_rerank.checkpoints.config import is_converted, read_object, read_objects
from mlx_rerank.checkpoints.files import CONFIG_FILE, MODULES_FILE, SENTENCE_TRANSFORMERS_FILE, WEIGHTS_FILE
from mlx_rerank.errors import UnsupportedModelError
from mlx_rerank.models.family import MODULES_KEY

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


def weights_of_modules(directory: Path) -> Iterator[tuple[str, Path]]:
    """Yield the folder of each module that has weights, and their file."""
    for module in _head(directory):
        path = str(module.get("path"))
        if _FOLDER.fullmatch(path) and (file := directory / path / WEIGHTS_FILE).is_file():
            yield path, file


def _head(directory: Path) -> list[dict[str, Any]]:
    """Return the modules after the transformer, if the next one pools what it gives; else none.

    Others are refused with the settings (`Settings.read`).
    """
    modules = read_objects(directory / MODULES_FILE)
    if len(modules) < 2 or modules[0].get("path") or not str(modules[1].get("type")).endswith(".Pooling"):
        return []
    saved = read_object(directory / SENTENCE_TRANSFORMERS_FILE) or {}
    return modules[1:] if saved.get("model_type") == "CrossEncoder" else []
