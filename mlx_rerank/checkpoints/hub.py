"""From the name of a model to a directory on this machine."""

import re
from pathlib import Path

from mlx_rerank.checkpoints.files import (
    BESIDE_VOCABULARY,
    CONFIG_FILE,
    INDEX_FILE,
    SETTINGS,
    TEXTS,
    TOKENIZER_FILE,
    TORCH_WEIGHTS_FILE,
    VOCABULARIES,
)
from mlx_rerank.errors import CheckpointNotFoundError

_FIRST = (CONFIG_FILE, *SETTINGS, TOKENIZER_FILE, "model*.safetensors", INDEX_FILE, *TEXTS, "README.md")
EMBEDDED = {"mini": Path(__file__).parents[1] / "assets" / "mini"}
_COMMIT = re.compile("[0-9a-f]{40}")


def resolve(model: str | Path, *, revision: str | None = None, cache_dir: str | Path | None = None) -> Path:
    """Return the directory of a model, downloading it where the name is one of the Hugging Face hub.

    Args:
        model: the name of an embedded model, a local directory, or a hub id such as ``BAAI/bge-reranker-v2-m3``.
        revision: branch, tag or commit on the hub; the default branch if None.
        cache_dir: where downloads are kept; the hub library's own default if None.

    Raises:
        CheckpointNotFoundError: the name is no directory, and the hub does not have it or cannot be reached.
    """
    if not isinstance(model, (str, Path)) or not str(model).strip():
        raise CheckpointNotFoundError(f"a model is a name, a hub id or a directory, not {model!r}")
    if isinstance(model, str) and model in EMBEDDED:  # a Path is a directory, whatever its name
        return EMBEDDED[model]
    try:
        path = Path(model).expanduser()
        is_directory, exists = path.is_dir(), path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, a null character
        raise CheckpointNotFoundError(f"{str(model)[:80]!r} cannot be a model: {error}") from error
    if is_directory:
        return path
    if exists:
        raise CheckpointNotFoundError(f"{path} is a file; give the directory that holds config.json and the weights")
    if isinstance(model, Path) or str(model).count("/") != 1 or str(model).startswith((".", "/", "~")):
        raise CheckpointNotFoundError(
            f"{str(model)!r} is not a directory, not a hub id like 'BAAI/bge-reranker-v2-m3', "
            f"and not an embedded model ({', '.join(EMBEDDED)})"
        )
    return _download(str(model), revision, cache_dir)


def public_name(model: str | Path) -> str:
    """Return the name of a model to show to others: a hub id as it is, a directory by its last part."""
    path = Path(model).expanduser()
    like_a_path = isinstance(model, Path) or model.startswith((".", "/", "~")) or model.count("/") > 1
    if not like_a_path and not path.is_dir():
        return str(model)
    return repo_of(path.resolve()) or path.resolve().name


def commit_of(directory: Path) -> str | None:
    """Return the commit of a directory in the hub's cache, which is named after it; None for any other directory."""
    return directory.name if directory.parent.name == "snapshots" and _COMMIT.fullmatch(directory.name) else None


def repo_of(directory: Path) -> str | None:
    """Return the hub id of a directory in the hub's cache; None for any other directory."""
    kind, *name = directory.parent.parent.name.split("--")  # no hub id contains "--"
    return "/".join(name) if commit_of(directory) and kind == "models" and len(name) == 2 else None


def _download(repo_id: str, revision: str | None, cache_dir: str | Path | None) -> Path:
    """Fetch, or find in the cache, the files that are read; of two that say the same, the first alone."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    def fetch(*patterns: str) -> Path:
        return Path(snapshot_download(repo_id, revision=revision, cache_dir=cache_dir, allow_patterns=list(patterns)))

    try:
        directory = fetch(*_FIRST)
        missing = [] if (directory / TOKENIZER_FILE).is_file() else [*VOCABULARIES, *BESIDE_VOCABULARY]
        missing += [] if any(directory.glob("*.safetensors")) else [TORCH_WEIGHTS_FILE]
        return fetch(*_FIRST, *missing) if missing else directory
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointNotFoundError(f"{repo_id!r} could not be fetched from the Hugging Face hub: {error}") from error
