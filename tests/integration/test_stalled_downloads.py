"""Downloads that stall keep no process from ending."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import COMMAND
from fake_hub import FakeHub
from servers import serving


@pytest.mark.parametrize("stalled", ["/api/models", "config.json", "model.safetensors"])
@pytest.mark.parametrize("command", ["score", "serve"])
def test_a_process_ends_though_a_download_stalls(tiny: Path, tmp_path: Path, stalled: str, command: str) -> None:
    with FakeHub().serving() as hub:
        hub.publish("test/tiny", tiny)
        hub.unanswered = stalled
        given = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "HF_HUB_DOWNLOAD_TIMEOUT": "600"}
        if command == "serve":
            with serving("--model", "test/tiny", environment=given, ready=False) as server:
                wait_for(hub, stalled)
                begin = time.monotonic()
                assert server.stop() == 0
        else:
            (tmp_path / "pairs.tsv").write_text("panda\ta bear\n")
            score = [*COMMAND, "score", "--model", "test/tiny", str(tmp_path / "pairs.tsv")]
            with subprocess.Popen(score, env=os.environ | given, stderr=subprocess.DEVNULL) as process:
                wait_for(hub, stalled)
                begin = time.monotonic()
                process.send_signal(signal.SIGINT)
                assert process.wait(60) == 130
        assert time.monotonic() - begin < 5


def wait_for(hub: FakeHub, stalled: str) -> None:
    """Wait until the hub has been asked for what it does not answer."""
    deadline = time.monotonic() + 20
    while not any(stalled in request for request in hub.asked):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.05)
