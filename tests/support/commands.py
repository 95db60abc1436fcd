"""The command line, in a process of its own."""

import subprocess
import sys

COMMAND = [sys.executable, "-m", "mlx_rerank"]


def run(*arguments: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [*COMMAND, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=120, encoding="utf-8"
    )
    assert result.returncode == code, result.stderr
    return result
