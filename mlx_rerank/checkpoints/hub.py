"""From the name of a model to a directory on this machine."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from mlx_rerank.checkpoints.files import (
    ADAPTER_FILE,
    CONFIG_FILE,
    DECLARING,
    INDEX_FILE,
    OF_MODULES,
    SETTINGS,
    TEXTS,
    TOKENIZER_FILE,
    TORCH_INDEX_FILE,
    TORCH_SHARDS,
    TORCH_WEIGHTS_FILE,
    VOCABULARIES,
)
from mlx_rerank.errors import CheckpointNotFoundError, InputError
from mlx_rerank.pairs.switches import optional_boolean, require_boolean

_SMALL = (
    CONFIG_FILE, *SETTINGS, *OF_MODULES, *DECLARING, TOKENIZER_FILE, INDEX_FILE, ADAPTER_FILE, *TEXTS, "README.md"
)  # fmt: skip
_WEIGHTS = "model*.safetensors"
EMBEDDED = {"mini": Path(__file__).parents[1] / "assets" / "mini"}
_COMMIT = re.compile("[0-9a-f]{40}")


def resolve(
    model: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: bool | str | None = None,
) -> Path:
    """Return the directory of a model, downloading it where the name is one of the Hugging Face hub.

    Args:
        model: the name of an embedded model, a local directory, or a hub id such as ``BAAI/bge-reranker-v2-m3``.
        revision: branch, tag or commit on the hub; the default branch if None.
        cache_dir: where downloads are kept; the hub library's own default if None.
        local_files_only: download nothing: the model must have been downloaded before.
        token: for the hub; the one that is stored on this machine if None or True, none if False.

    Raises:
        InputError: a revision is asked for of what is not on the hub, or revision or cache_dir is empty, or
            a switch is no boolean.
        CheckpointNotFoundError: the name is no directory, and the hub does not have it or cannot be reached.
    """
    if not isinstance(model, (str, Path)) or not str(model).strip():
        raise CheckpointNotFoundError(f"a model is a name, a hub id or a directory, not {model!r}")
    local_files_only = require_boolean("local_files_only", local_files_only)
    token = token if isinstance(token, str) else optional_boolean("token", token)
    for name, value in (("revision", revision), ("cache_dir", cache_dir)):
        if value is not None and (not isinstance(value, (str, Path)) or not str(value).strip()):
            raise InputError(f"{name} {value!r} is empty or no text: name one, or leave it out")
    if isinstance(model, str) and model in EMBEDDED:  # a Path is a directory, whatever its name
        _require_no_revision(model, revision)
        return EMBEDDED[model]
    try:
        path = Path(model).expanduser()
        is_directory, exists = path.is_dir(), path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, a null character
        raise CheckpointNotFoundError(f"{str(model)[:80]!r} cannot be a model: {error}") from error
    if is_directory:
        _require_no_revision(path, revision)
        return path
    if exists:
        raise CheckpointNotFoundError(f"{path} is a file; give the directory that holds config.json and the weights")
    if isinstance(model, Path) or str(model).count("/") != 1 or str(model).startswith((".", "/", "~")):
        raise CheckpointNotFoundError(
            f"{str(model)!r} is not a directory, not a hub id like 'BAAI/bge-reranker-v2-m3', "
            f"and not an embedded model ({', '.join(EMBEDDED)})"
        )
    where = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
    return _download(str(model), where)


def public_name(model: str | Path) -> str:
    """Return the name of a model to show to others: a hub id as it is, a directory by its last part."""
    like_a_path = isinstance(model, Path) or model.startswith((".", "/", "~")) or model.count("/") > 1
    try:
        path = Path(model).expanduser()
        if not like_a_path and not path.is_dir():
            return str(model)
        return repo_of(path.resolve()) or path.resolve().name
    except (OSError, RuntimeError, ValueError):  # no path at all, which `resolve` refuses
        return str(model)


def commit_of(directory: Path) -> str | None:
    """Return the commit of a directory in the hub's cache, which is named after it; None for any other directory."""
    return directory.name if directory.parent.name == "snapshots" and _COMMIT.fullmatch(directory.name) else None


def repo_of(directory: Path) -> str | None:
    """Return the hub id of a directory in the hub's cache; None for any other directory."""
    kind, *name = directory.parent.parent.name.split("--")  # no hub id contains "--"
    return "/".join(name) if commit_of(directory) and kind == "models" and len(name) == 2 else None


def _require_no_revision(model: str | Path, revision: str | None) -> None:
    """Raise InputError where a revision is asked for of a model that has none."""
    if revision is not None:
        what = "built in" if model in EMBEDDED else "a directory"
        raise InputError(f"revision {revision!r} is for models of the hub, and {str(model)!r} is {what}: leave it out")


def _download(repo_id: str, where: Mapping[str, Any]) -> Path:
    """Fetch, or find in the cache, the files that are read.

    Args:
        repo_id: on the hub.
        where: the hub library's arguments of the same names.
    """
    try:
        return _interruptible(partial(_fetch, repo_id, **where))
    except Exception as error:  # the library's, and those of its own libraries
        remedy = "check its name and the connection, or give a directory"
        message = f"{repo_id!r} could not be fetched from the Hugging Face hub ({remedy}): {error}"
        raise CheckpointNotFoundError(message) from error


def _fetch(
    repo_id: str,
    revision: str | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    token: bool | str | None,
) -> Path:
    """Fetch files one by one, in this thread: Python would not end before a pool's thread whose download stalls."""
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    local = partial(snapshot_download, repo_id, revision=revision, cache_dir=cache_dir, local_files_only=True)
    if local_files_only:
        return Path(local())
    try:
        listed = HfApi(token=token).model_info(repo_id, revision=revision).siblings or []
    except Exception as error:  # no connection, no such repository, no right to see it
        try:
            return Path(local())
        except LocalEntryNotFoundError:
            raise error from None
    directory = None
    for name in _wanted([file.rfilename for file in listed]):
        commit = directory.name if directory else revision  # one for all, if another comes meanwhile
        path = Path(hf_hub_download(repo_id, name, revision=commit, cache_dir=cache_dir, token=token))
        directory = directory or path.parents[name.count("/")]
    if directory is None:
        raise FileNotFoundError("it holds none of the files of a model")
    return directory


def _wanted(names: list[str]) -> Iterator[str]:
    """Yield the files that are read, of two that say the same only one; weights last, as who has them has all."""
    from huggingface_hub.utils import filter_repo_objects

    tokenizer = [] if TOKENIZER_FILE in names else VOCABULARIES
    yield from filter_repo_objects(names, allow_patterns=[*_SMALL, *tokenizer])
    torch = [TORCH_WEIGHTS_FILE] if TORCH_WEIGHTS_FILE in names else [TORCH_INDEX_FILE, TORCH_SHARDS]
    weights = [*filter_repo_objects(names, allow_patterns=_WEIGHTS)]
    yield from weights or filter_repo_objects(names, allow_patterns=torch)


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
