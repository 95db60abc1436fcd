"""benchmarks/macs.py: the page of results from Macs, and what is refused."""

import copy
import importlib
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import run_here

from mlx_rerank.bench import report
from mlx_rerank.device import machine
from mlx_rerank.errors import InputError

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def macs() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("macs")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def measured(tiny: Path) -> dict[str, Any]:
    """What the command prints here, on a tiny model."""
    few = ["--rounds", "1", "--candidates", "4", "--lengths", "0", "--scaling", "0", "--threads", "1"]
    chosen = ["--contender", "mlx-rerank", "--json", "--model", str(tiny)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mlx-rerank", "bench", "speed", *few, *chosen])
        return json.loads(run_here("bench", "speed", *few, *chosen).stdout)


@pytest.fixture
def result(measured: dict[str, Any]) -> dict[str, Any]:
    """The same, as a Mac would print it."""
    found = copy.deepcopy(measured)
    found["machine"] |= {
        "chip": "Apple M2 Max",
        "system": "macOS 26.2 arm64",
        "memory_bytes": 64 << 30,
        "wheels": {"mlx": "cp312-cp312-macosx_14_0_arm64"},
    }
    return found


@pytest.fixture
def plant(tmp_path: Path) -> Callable[..., Path]:
    def write(result: dict[str, Any], name: str = "planted.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(result))
        return path

    return write


def test_the_page_is_what_the_files_say(macs: Any) -> None:
    assert macs.PAGE.read_text(encoding="utf-8") == macs.page(macs.RESULTS.glob("*.json"))


def test_without_files_the_page_says_so(macs: Any) -> None:
    assert macs.page([]).endswith("There are none yet.\n")


def test_what_is_printed_has_all_that_a_result_needs(
    macs: Any, result: dict[str, Any], plant: Callable[..., Path], tiny: Path
) -> None:
    [figures] = result["summary"].values()
    page = macs.page([plant(result)])
    [row] = [line for line in page.splitlines() if line.startswith("| Apple")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:6] == ["Apple M2 Max", "64 GB", "26.2", tiny.name.replace("_", r"\_"), "float32", "cpu"]
    assert cells[7].startswith(f"{figures['mlx-rerank']['pairs_per_second']['median']:.1f} (")
    assert cells[-1] == "planted.json"
    for text in (result["fingerprint"], result["date"], "macosx", "mlx-rerank bench speed"):
        assert text in page.replace("\\", "")
    assert "none yet" not in page


def test_a_page_of_several_files_has_the_rows_of_all(
    macs: Any, result: dict[str, Any], plant: Callable[..., Path]
) -> None:
    paths = [plant(result, "b.json"), plant(result, "a.json")]
    rows = [line for line in macs.page(paths).splitlines() if line.startswith("| Apple")]
    assert [row.split(" | ")[-1] for row in rows] == ["a.json |", "b.json |"]


def fields(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to each part of a form."""
    parts = value.items() if isinstance(value, dict) else [(0, value[0])] if isinstance(value, list) else []
    found = [way for name, part in parts for way in [(*path, name), *fields(part, (*path, name))]]
    return [way for way in found if way[-1] != 0]


def test_each_field_is_needed(macs: Any, result: dict[str, Any], plant: Callable[..., Path]) -> None:
    [workload] = result["summary"]
    ways = fields(macs.FORM) + [("summary", workload, "mlx-rerank", *way) for way in fields(macs.FIGURES)]
    assert ("machine", "wheels", "mlx") in ways
    for way in ways:
        for damage in (dict.pop, lambda holder, name: holder.__setitem__(name, None)):
            damaged = copy.deepcopy(result)
            holder = damaged
            for step in way[:-1]:
                holder = holder[step]
            damage(holder, way[-1])
            with pytest.raises(InputError) as raised:
                macs.read(plant(damaged))
            assert "planted.json lacks" in str(raised.value)
            assert ".".join(map(str, way)) in str(raised.value)


@pytest.mark.parametrize(
    ("chip", "system"),
    [
        ("AMD EPYC", "Linux x86_64"),
        ("Apple M2", "Linux aarch64"),
        ("Apple Paravirtual device", "macOS 26.2 arm64"),
        ("Apple M1 (Virtual)", "macOS 15.1 arm64"),
        ("Intel(R) Core(TM) i9", "macOS 15.1 x86_64"),
    ],
)
def test_what_is_not_from_a_mac_is_refused(
    chip: str, system: str, macs: Any, result: dict[str, Any], plant: Callable[..., Path]
) -> None:
    result["machine"] |= {"chip": chip, "system": system}
    with pytest.raises(InputError) as raised:
        macs.read(plant(result, "elsewhere.json"))
    assert str(raised.value) == f"elsewhere.json is not from a Mac: {chip}, {system}"


def test_this_machine_is_told_as_it_is(macs: Any, measured: dict[str, Any], plant: Callable[..., Path]) -> None:
    if sys.platform != "darwin":
        with pytest.raises(InputError, match=r"planted\.json is not from a Mac"):
            macs.read(plant(measured))


def test_other_files_are_refused(macs: Any, result: dict[str, Any], plant: Callable[..., Path]) -> None:
    path = plant(result | {"benchmark": "memory"})
    with pytest.raises(InputError, match=r"planted\.json is of `bench memory`"):
        macs.read(path)
    result["contenders"][0]["status"] = "it died"
    with pytest.raises(InputError, match="lacks figures of mlx-rerank"):
        macs.read(plant(result))
    for text in ("", "[]", "{", json.dumps(result).replace('"calls": 1', '"calls": NaN')):
        path.write_text(text)
        with pytest.raises(InputError, match=r"planted\.json"):
            macs.read(path)


def test_a_strangers_text_stays_text(macs: Any, result: dict[str, Any], plant: Callable[..., Path]) -> None:
    result["model"] = "a|b\n# c <script> [d](e)"
    page = macs.page([plant(result)])
    assert r"a\|b # c &lt;script&gt; \[d\](e)" in page


def test_the_version_of_macos_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    monkeypatch.setattr(machine, "_sysctl", lambda _: None)
    monkeypatch.setattr(platform, "mac_ver", lambda: ("26.2", ("", "", ""), "arm64"))
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert report.machine()["system"] == "macOS 26.2 arm64"
