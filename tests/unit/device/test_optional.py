"""Packages of extras: how old they may be."""

import re
from pathlib import Path

import pytest

from mlx_rerank.device.optional import imported, require_at_least
from mlx_rerank.errors import MissingDependencyError
from mlx_rerank.proof.reference import ReferenceReranker

FLOORS = {"torch": "2.10", "transformers": "5.5", "starlette": "1.0.1"}  # what is below has known holes
PROJECT = Path(__file__).parents[3] / "pyproject.toml"


@pytest.mark.parametrize("name", FLOORS)
def test_no_version_with_a_known_hole_is_installed(name: str) -> None:
    stated = re.findall(rf'"{name}>=([\d.]+)[";]', PROJECT.read_text())
    assert stated == [FLOORS[name]]


@pytest.mark.parametrize(
    ("found", "least", "enough"),
    [
        ("2.10.0", "2.10", True), ("2.9.1", "2.10", False), ("2.13.0+cpu", "2.10", True), ("3.0", "2.10", True),
        ("1.99", "2.10", False), ("2.10.0a0+git1", "2.10", True), ("5.4.9", "5.5", False), ("5.23.0.dev0", "5.5", True),
    ],
)  # fmt: skip
def test_versions_are_compared_by_number(monkeypatch: pytest.MonkeyPatch, found: str, least: str, enough: bool) -> None:
    monkeypatch.setattr("mlx_rerank.device.optional.version", lambda _: found)
    if enough:
        require_at_least("it", least, "nothing is done")
        return
    with pytest.raises(
        MissingDependencyError, match=rf"nothing is done: it is {re.escape(found)}; pip .*'it>={least}'"
    ):
        require_at_least("it", least, "nothing is done")


def test_the_reference_does_not_use_older_transformers(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    monkeypatch.setattr("mlx_rerank.device.optional.version", lambda _: "5.4.1")
    with pytest.raises(MissingDependencyError, match=r"may run code it names: transformers is 5\.4\.1"):
        ReferenceReranker(tiny)


def test_what_no_extra_brings_is_installed_by_its_own_name() -> None:
    with pytest.raises(MissingDependencyError, match=r"needs mlx_rerank_none, .*: pip install mlx_rerank_none$"):
        imported("mlx_rerank_none", extra=None)
