"""The server as a service of macOS, which starts it at login and again if it fails."""

import os
import plistlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mlx_rerank.errors import OutputError

LABEL = "io.github.mlx-rerank"


def property_list(arguments: Sequence[str]) -> bytes:
    """Return launchd's description of the service.

    Args:
        arguments: of `mlx-rerank serve`.
    """
    logs = Path.home() / "Library" / "Logs" / "mlx-rerank.log"
    return plistlib.dumps(
        {
            "Label": LABEL,
            "ProgramArguments": [sys.executable, "-m", "mlx_rerank", "serve", *arguments],
            "WorkingDirectory": str(Path.cwd()),  # paths among the arguments may be relative to it
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ProcessType": "Interactive",  # else macOS slows it down
            "StandardErrorPath": str(logs),
            "SoftResourceLimits": {"NumberOfFiles": 4096},
        }
    )


def install(arguments: Sequence[str]) -> Path:
    """Write the description where launchd looks for it, and start the service; an older one is replaced.

    Returns:
        The file that was written.

    Raises:
        OutputError: it cannot be written, or launchd does not take it.
    """
    path = Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    domain = f"gui/{os.getuid()}"
    unfinished = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(property_list(arguments))
        unfinished.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    subprocess.run(["launchctl", "bootout", f"{domain}/{LABEL}"], capture_output=True, check=False)  # the older one
    started = subprocess.run(["launchctl", "bootstrap", domain, str(path)], capture_output=True, text=True, check=False)
    if started.returncode:
        raise OutputError(f"launchd did not take {path}: {started.stderr.strip() or started.returncode}")
    return path
