"""Writing a model's directory, which appears whole or not at all."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rerank.checkpoints import weights
from mlx_rerank.checkpoints.appearing import appearing
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.files import CONFIG_FILE, SETTINGS, TEXTS, TOKENIZER_FILE, WEIGHTS_FILE, own
from mlx_rerank.errors import OutputError, OutputExistsError


def require_absent(path: str | Path) -> Path:
    """Return the path of a directory to write.

    Raises:
        OutputExistsError: something is there.
        OutputError: nothing can be written there.
    """
    target = Path(path)
    try:
        target = target.expanduser()
        target.lstat()
    except FileNotFoundError:
        return target
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, a null character
        raise OutputError(f"{str(path)[:80]!r} cannot be written: {error}; name another directory") from error
    raise OutputExistsError(f"{target} exists: remove it, or name another directory to write")


def write_model(
    target: Path, model: nn.Module, config: Mapping[str, Any], source: Checkpoint, texts: Mapping[str, str]
) -> None:
    """Write a directory that `Reranker` loads.

    Args:
        target: the directory, which does not exist.
        model: with the parameters to write.
        config: to write as config.json.
        source: whose tokenizer, settings and licences are copied.
        texts: more files by name; they replace copied files of the same name.

    Raises:
        OutputError: it cannot be written.
        WeightsError: a value is beyond float16's range.
        CheckpointError: a file of the source has changed since it was opened, or is a link to something else.
    """
    with appearing(target) as directory, source.reading(), _without_cache():
        weights.save(directory / WEIGHTS_FILE, model)
        (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        _copy_texts(source, directory)
        for name, text in texts.items():
            (directory / name).write_text(text, encoding="utf-8")


def _copy_texts(source: Checkpoint, target: Path) -> None:
    """Copy the tokenizer, how the model is to be used, and whatever states the licence."""
    own(source.directory / TOKENIZER_FILE, source.directory)
    (target / TOKENIZER_FILE).write_bytes(source.tokenizer_file())
    for pattern in (*SETTINGS, *TEXTS):
        for path in sorted(source.directory.glob(pattern)):
            if path.is_file():
                shutil.copyfile(own(path, source.directory), target / path.name)


@contextmanager
def _without_cache() -> Iterator[None]:
    """Give freed buffers back at once: the next tensor rarely has the same size."""
    limit = mx.set_cache_limit(0)
    try:
        yield
    finally:
        mx.set_cache_limit(limit)
