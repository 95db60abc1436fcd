"""From the name of a model to a directory on this machine."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from mlx_rerank.errors import CheckpointNotFoundError

EMBEDDED = {"mini": Path(__file__).parents[1] / "assets" / "mini"}
_FILES = ["config.json", "tokenizer.json", "LICENSE*", "NOTICE*", "README.md"]
_WEIGHTS = ["model*.safetensors", "model.safetensors.index.json"]
_TORCH_WEIGHTS = ["pytorch_model.bin"]


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
    return directory.name if directory.parent.name == "snapshots" else None


def repo_of(directory: Path) -> str | None:
    """Return the hub id of a directory in the hub's cache; None for any other directory."""
    kind, *name = directory.parent.parent.name.split("--")  # no hub id contains "--"
    return "/".join(name) if commit_of(directory) and kind == "models" and len(name) == 2 else None


def _download(repo_id: str, revision: str | None, cache_dir: str | Path | None) -> Path:
    """Fetch, or find in the cache, the files that the converter reads; pytorch_model.bin only without safetensors."""

    def fetch() -> Path:
        directory = _fetch(repo_id, revision, cache_dir, _WEIGHTS)
        found = any(directory.glob("*.safetensors"))
        return directory if found else _fetch(repo_id, revision, cache_dir, _TORCH_WEIGHTS)

    try:
        return _interruptible(fetch)
    except Exception as error:  # the library's, and those of its own libraries
        raise CheckpointNotFoundError(f"{repo_id!r} could not be fetched from the Hugging Face hub: {error}") from error


def _fetch(repo_id: str, revision: str | None, cache_dir: str | Path | None, weights: list[str]) -> Path:
    """Fetch files one by one, in this thread: Python would not end before a pool's thread whose download stalls.

    Weights come last, so that a directory that has them has all.
    """
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import filter_repo_objects

    try:
        listed = HfApi().model_info(repo_id, revision=revision).siblings or []
    except Exception as error:  # no connection, no such repository, no right to see it
        try:
            return Path(snapshot_download(repo_id, revision=revision, cache_dir=cache_dir, local_files_only=True))
        except LocalEntryNotFoundError:
            raise error from None
    names = [file.rfilename for file in listed]
    directory = None
    for patterns in (_FILES, weights):
        for name in filter_repo_objects(names, allow_patterns=patterns):
            wanted = directory.name if directory else revision  # one commit for all, if another comes meanwhile
            path = Path(hf_hub_download(repo_id, name, revision=wanted, cache_dir=cache_dir))
            directory = directory or path.parents[name.count("/")]
    if directory is None:
        raise FileNotFoundError("it holds none of the files of a model")
    return directory


def _interruptible(work: Callable[[], Path]) -> Path:
    """Call a function that may take for ever in a thread that keeps neither Ctrl-C nor the end of Python waiting."""
    future: Future[Path] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="mlx-rerank-download", daemon=True).start()
    return future.result()
