"""The server as a service of macOS, which starts it at login and again if it fails."""

import os
import plistlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rerank.errors import InputError, OutputError

LABEL = "io.github.mlx-rerank"
_TEMPORARY = ("/tmp", "/private/tmp", "/var/tmp", "/private/var/tmp", "/var/folders", "/private/var/folders")
_CACHES = ("UV_CACHE_DIR", "XDG_CACHE_HOME")
_CACHE_NAMES = {".cache", "Caches"}  # of uv, pipx and whatever else macOS and people empty
_CACHE_MARK = "CACHEDIR.TAG"
_LONGEST_STOP, _BETWEEN = 30.0, 0.2  # seconds; launchd kills what has not ended after 20


@dataclass(frozen=True)
class Status:
    """What became of the service.

    Args:
        file: launchd's description of it; None if there is none.
        command: in that file.
        loaded: whether launchd knows the service.
        process: that runs now; None if none does.
        last_exit: code of the process before, as launchd tells it; None if there was none.
    """

    file: Path | None
    command: tuple[str, ...]
    loaded: bool
    process: int | None
    last_exit: str | None


def description_file() -> Path:
    """Return where launchd looks for the description."""
    return Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"


def log_file() -> Path:
    """Return where the server's log goes."""
    return Path.home() / "Library" / "Logs" / "mlx-rerank.log"


def property_list(arguments: Sequence[str]) -> bytes:
    """Return launchd's description of the service.

    Args:
        arguments: of `mlx-rerank serve`.

    Raises:
        InputError: this Python is where the next cleaning removes it, and the service with it.
    """
    _require_lasting(Path(sys.executable))
    return plistlib.dumps(
        {
            "Label": LABEL,
            "ProgramArguments": [sys.executable, "-m", "mlx_rerank", "serve", *arguments],
            "WorkingDirectory": str(Path.cwd()),  # paths among the arguments may be relative to it
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ProcessType": "Interactive",  # else macOS slows it down
            "StandardErrorPath": str(log_file()),
            "SoftResourceLimits": {"NumberOfFiles": 4096},
        }
    )


def install(arguments: Sequence[str]) -> Path:
    """Write the description where launchd looks for it, and start the service; an older one is replaced.

    Returns:
        The file that was written.

    Raises:
        InputError: this Python is where the next cleaning removes it.
        OutputError: it cannot be written, or launchd does not take it.
    """
    path, described = description_file(), property_list(arguments)
    unfinished = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(described)
        unfinished.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    _stop()  # the older one
    started = _launchctl("bootstrap", _domain(), str(path))
    if started.returncode:
        raise OutputError(f"launchd did not take {path}: {started.stderr.strip() or started.returncode}")
    return path


def uninstall() -> list[Path]:
    """Stop the service and remove all that it left: the description and the log.

    Returns:
        The files that were removed.

    Raises:
        OutputError: launchd does not let it go, or a file cannot be removed.
    """
    _stop()
    path, removed = description_file(), []
    for file in (path, path.with_suffix(".tmp"), log_file()):
        try:
            file.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OutputError(f"{file} cannot be removed: {error.strerror}") from error
        removed.append(file)
    return removed


def status() -> Status:
    """Return what became of the service.

    Raises:
        OutputError: launchd cannot be asked.
        InputError: the description cannot be read.
    """
    path = description_file()
    command = tuple(map(str, _read(path).get("ProgramArguments", ()))) if path.exists() else ()
    asked = _asked()
    process, last_exit = (
        re.search(rf"^\s*{name} = (.+)$", asked.stdout, re.MULTILINE) for name in ("pid", "last exit code")
    )
    return Status(
        file=path if path.exists() else None,
        command=command,
        loaded=asked.returncode == 0,
        process=int(process[1]) if process else None,
        last_exit=last_exit[1] if last_exit and last_exit[1][0].isdigit() else None,  # or "(never exited)"
    )


def _read(path: Path) -> dict[str, Any]:
    """Return what a description says."""
    try:
        return plistlib.loads(path.read_bytes())
    except (OSError, ValueError, plistlib.InvalidFileException) as error:
        raise InputError(f"{path} cannot be read: {error}; install the service again") from error


def _stop() -> None:
    """Have launchd end the service and forget it, and wait until it has; one that it does not know is no fault."""
    told = _launchctl("bootout", f"{_domain()}/{LABEL}")
    end = time.monotonic() + _LONGEST_STOP
    while _asked().returncode == 0:
        if time.monotonic() > end:
            why = told.stderr.strip() or f"it still runs after {_LONGEST_STOP:g} s"
            raise OutputError(f"launchd does not let {LABEL} go: {why}; try again")
        time.sleep(_BETWEEN)


def _asked() -> subprocess.CompletedProcess[str]:
    """Return what launchd tells of the service; with another code than 0, it does not know it."""
    return _launchctl("print", f"{_domain()}/{LABEL}")


def _domain() -> str:
    return f"gui/{os.getuid()}"


def _launchctl(*words: str) -> subprocess.CompletedProcess[str]:
    """Run launchd's command."""
    try:
        return subprocess.run(["launchctl", *words], capture_output=True, text=True, check=False)
    except OSError as error:
        raise OutputError(f"launchctl, which macOS has, cannot be run: {error.strerror}") from error


def _require_lasting(python: Path) -> None:
    """Refuse a Python that a cleaning of caches or temporary files removes: the service would end with it.

    A cache is known by where it is, by its name, or by the file that marks it. An environment may be marked so too,
    which keeps it from backups; only what is above it counts.
    """
    bin_directory = python.parent
    for place in (bin_directory, bin_directory.resolve()):  # not of the file: it leads to the Python beneath
        for above in place.parents:
            marked = above != place.parent and (above / _CACHE_MARK).exists()
            if marked or above.name in _CACHE_NAMES or above in _passing():
                raise InputError(
                    f"{python} is below {above}, which is emptied from time to time, and the service would be gone: "
                    "install it to stay, with `uv tool install mlx-rerank`, and install the service from there"
                )


def _passing() -> set[Path]:
    """Return directories for temporary files and caches, as they are called and as they are found."""
    named = [*_TEMPORARY, tempfile.gettempdir(), *(os.environ[name] for name in _CACHES if os.environ.get(name))]
    return {found for path in map(Path, named) for found in (path.absolute(), path.resolve())}
