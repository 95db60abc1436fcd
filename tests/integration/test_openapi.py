"""The OpenAPI document and the server agree, whatever is sent: property tests by schemathesis."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from servers import serving

CASES = 1000
OPTIONS = ["--phases", "coverage,fuzzing", "--max-examples", "10", "--seed", "1", "--no-color", "--checks", "all"]
# What a schema cannot say is refused all the same: nothing to rank, texts on one side alone, too little room.
OPTIONS += ["--exclude-checks", "positive_data_acceptance"]


@pytest.mark.skipif(not find_spec("schemathesis"), reason="schemathesis needs Python 3.11")
def test_no_case_of_a_thousand_breaks_the_document(tiny: Path, tmp_path: Path) -> None:
    with serving("--model", f"mini={tiny}") as server:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", *OPTIONS]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500)
        assert result.returncode == 0, result.stdout[-5000:] + result.stderr
        assert not [line for line in server.log if "failed" in line]
    found = re.search(r"(\d+) generated, (\d+) passed", result.stdout)
    assert found, result.stdout[-1000:]
    assert int(found[1]) >= CASES
    assert found[1] == found[2]
