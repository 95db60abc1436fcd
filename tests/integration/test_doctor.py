"""The command that checks a machine, on this one."""

import json

import pytest
from commands import run

from mlx_rerank.proof.doctor import CHECKS


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_a_machine_that_is_as_it_should_be() -> None:
    _, *found = [json.loads(line) for line in run("doctor", "--json").stdout.splitlines()]
    assert all(row["passed"] for row in found)
    ends = [row for row in found if "failure" in row]
    assert [row["check"] for row in ends] == list(CHECKS)
    assert len(found) - len(ends) > 2 * len(CHECKS)
