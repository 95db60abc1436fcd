"""The command line, in a process of its own, or in this one."""

import io
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

from mlx_rerank import cli

COMMAND = [sys.executable, "-m", "mlx_rerank"]
Result = subprocess.CompletedProcess[str]


def run(*arguments: str, stdin: str = "", code: int = 0) -> Result:
    """Run a command as a person does."""
    result = subprocess.run(
        [*COMMAND, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=120, encoding="utf-8"
    )
    assert result.returncode == code, result.stderr
    return result


def run_here(*arguments: str, stdin: str = "", code: int = 0) -> Result:
    """Run a command in this process, where what it needs is imported once for all."""
    given, out, err = (io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8") for text in (stdin, "", ""))
    handler, logs = signal.getsignal(signal.SIGTERM), logging.getLogger().handlers
    levels = {logger: logger.level for logger in map(logging.getLogger, (None, "mlx_rerank", "uvicorn"))}
    left = 0
    try:
        with mock.patch.multiple(sys, stdin=given, stdout=out, stderr=err):
            cli.main(list(arguments))
    except SystemExit as end:
        left = end.code or 0
    finally:
        signal.signal(signal.SIGTERM, handler)
        logging.getLogger().handlers = logs
        for logger, level in levels.items():
            logger.setLevel(level)
    assert left == code, _written(err)
    return subprocess.CompletedProcess(arguments, code, _written(out), _written(err))


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()


def log_bindings(code: str, directory: Path) -> str:
    """Run code that prints something in a process that writes which library each symbol came from."""
    directory.mkdir()
    linker = {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(directory / "log")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | linker
    )
    return done.stdout.strip()
