"""From a converted directory to a model on the Hugging Face hub."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_rerank.checkpoints.card import model_card, renamed
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.config import read_config
from mlx_rerank.checkpoints.files import own
from mlx_rerank.checkpoints.reading import read_text
from mlx_rerank.errors import CheckpointError, InputError, UploadError
from mlx_rerank.pairs.switches import require_boolean
from mlx_rerank.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_LOG_IN = "run `hf auth login`, or set HF_TOKEN to a token that may write"
_REMEDIES = {401: _LOG_IN, 403: "does the token allow writing under this name?"}


def upload(directory: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Send a converted directory to the hub in one commit, creating the repository if it does not exist.

    Other files of the repository stay there.

    Args:
        directory: what `convert` wrote.
        repo_id: user or organisation, and name: "user/name".
        private: nobody else may see the model. A repository that exists and is public is refused.

    Returns:
        The address of the model's page.

    Raises:
        InputError: the repo_id is not of that form.
        CheckpointError: the directory was not written by `convert`, is damaged, has a link to elsewhere, or changed
            while it was sent.
        UploadError: the hub refuses the upload or cannot be reached, or the repository is public.
    """
    from huggingface_hub import CommitOperationAdd

    require_repo_id(repo_id)
    private = require_boolean("private", private)
    checkpoint = _open(directory)
    operations = [CommitOperationAdd(name, content) for name, content in _contents(checkpoint, repo_id).items()]
    again = f"mlx-rerank upload {shlex.quote(str(directory))} {repo_id}{' --private' if private else ''}"
    kept = f"; {directory} is kept, and `{again}` tries again"
    with _hub(repo_id, kept) as api:
        page = api.create_repo(repo_id, private=private or None, exist_ok=True)
        exposed = private and not api.model_info(repo_id).private  # the hub leaves an existing repository as it is
    if exposed:
        raise UploadError(f"{repo_id} is public: make it private in its settings, or leave private out{kept}")
    with _hub(repo_id, kept) as api:
        message = f"Upload a model converted with mlx-rerank {__version__}"
        checkpoint.require_unchanged()
        api.create_commit(repo_id, operations, commit_message=message)
    checkpoint.require_unchanged()  # or what was sent is a mixture
    return str(page)


def contents(directory: str | Path, repo_id: str) -> Mapping[str, Path | bytes]:
    """Return what an upload sends, by name: files, and the model card under the model's new name.

    Args:
        directory: what `convert` wrote. Whatever was added to it is sent, too, except for hidden files.
        repo_id: user or organisation, and name.

    Raises:
        InputError: the repo_id is not of that form.
        CheckpointError: the directory was not written by `convert`, is damaged, or has a link to elsewhere.
    """
    require_repo_id(repo_id)
    return _contents(_open(directory), repo_id)


def _open(directory: str | Path) -> Checkpoint:
    """Open what is to be sent.

    Raises:
        CheckpointError: the directory was not written by `convert`, or is damaged.
    """
    given = Path(directory).expanduser()
    if not given.is_dir():
        raise CheckpointError(f"{directory} is not a directory: give one that convert has written")
    read_config(given)  # which says so if there is none
    checkpoint = Checkpoint.open(given)
    if not checkpoint.converted:
        raise CheckpointError(f"{directory} was not converted by mlx-rerank: give a directory that convert has written")
    with checkpoint.reading():
        checkpoint.encoder()  # these two refuse what would not load
        checkpoint.tensors()
    return checkpoint


def _contents(checkpoint: Checkpoint, repo_id: str) -> Mapping[str, Path | bytes]:
    """Return what an upload sends, by name."""
    found: dict[str, Path | bytes] = {}
    for path in sorted(checkpoint.directory.rglob("*")):
        name = path.relative_to(checkpoint.directory)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            found[name.as_posix()] = own(path, checkpoint.directory)
    return found | {"README.md": _card(checkpoint, repo_id).encode()}


def require_repo_id(repo_id: str) -> None:
    """Refuse what is not the name of a repository.

    Raises:
        InputError: it is not user/name, or the hub does not allow it.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise HFValidationError("there must be one '/'")
    except HFValidationError as error:
        raise InputError(f"{repo_id!r} is not a repository of the form 'user/name': {error}") from error


def require_login(repo_id: str) -> None:
    """Ask the hub who owns the token, so that a long conversion does not fail at its end because of a bad token.

    Raises:
        UploadError: there is no token, it is invalid or may only read, or the hub cannot be reached.
    """
    with _hub(repo_id) as api:
        owner: Mapping[str, Any] = api.whoami()
    if owner.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise UploadError(f"nothing can be uploaded to {repo_id}: the token may only read; {_LOG_IN}")


def _card(checkpoint: Checkpoint, name: str) -> str:
    """Return the directory's model card under another name, with what was written into it by hand."""
    path = checkpoint.directory / "README.md"
    try:
        return renamed(read_text(path), name)
    except FileNotFoundError:
        return model_card(checkpoint.raw, checkpoint.shape.max_length, path, name=name)


@contextmanager
def _hub(repo_id: str, kept: str = "") -> Iterator["HfApi"]:
    """Give the hub's client, and turn whatever it raises into an error that says what to do."""
    from huggingface_hub import HfApi

    api = HfApi(token=True, library_name="mlx-rerank", library_version=__version__)
    try:
        yield api
    except Exception as error:  # the client's own, its HTTP library's, its storage's and plain ones
        raise UploadError(f"{repo_id} could not be uploaded: {_reason(error, api.endpoint)}{kept}") from error


def _reason(error: BaseException, endpoint: str) -> str:
    """Return on one line what went wrong and, where it is known, the remedy."""
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

    if isinstance(error, LocalTokenNotFoundError):
        return f"there is no token: {_LOG_IN}"
    if isinstance(error, OfflineModeIsEnabled):
        return "the hub's client is in offline mode: unset HF_HUB_OFFLINE"
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    for cause in chain:
        response = getattr(cause, "response", None)
        if response is not None:
            said = getattr(cause, "server_message", None)
            answer = f"{endpoint} answered {response.status_code} {response.reason_phrase}"
            remedy = _REMEDIES.get(response.status_code)
            return "; ".join(filter(None, (answer, _one_line(cause if said is None else said), remedy)))
    said = ": ".join(dict.fromkeys(_one_line(cause) or type(cause).__name__ for cause in chain))
    return f"{said}; can {endpoint} be reached?"


def _one_line(text: object) -> str:
    """Return a text without line breaks."""
    return " ".join(str(text).split())
