"""Changes of code that are drawn at random: where they are made, and that the seed decides them."""

from pathlib import Path

import pytest

pytest.importorskip("cosmic_ray")
import operators
from operators import Mutant, draw

CODE = '''"""What it is: 1 + 1."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import enum

Text = str | None


def half(number: int | None, *, least: int = 2) -> int | None:
    if number is None and least < 1:
        raise ValueError(f"{str(number)[:60]!r} is nothing")
    logger.warning(f"{least + 1} is more")
    return number // 2 if number else least


class Thing:
    size: int | None = 3

    def __repr__(self) -> str:
        return "x" * 5
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(operators, "PACKAGE", tmp_path)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "code.py").write_text(CODE)
    return tmp_path


def shown(drawn: list[Mutant]) -> list[tuple[str, str]]:
    return [(mutant.old, mutant.new) for mutant in drawn]


def test_only_what_computes_is_changed(package: Path) -> None:
    drawn = [mutant for seed in range(10) for mutant in draw(["some"], seed, 99)]
    assert {mutant.old for mutant in drawn} == {
        "def half(number: int | None, *, least: int = 2) -> int | None:",
        "if number is None and least < 1:",
        "return number // 2 if number else least",
        "size: int | None = 3",
    }
    assert {mutant.new for mutant in drawn if mutant.new.startswith("size")} == {
        "size: int | None = 4", "size: int | None = 2",
    }  # fmt: skip
    for mutant in drawn:
        compile(mutant.code, "changed", "exec")
        changed = [i for i, lines in enumerate(zip(CODE.split("\n"), mutant.code.split("\n"), strict=True), 1)
                   if lines[0] != lines[1]]  # fmt: skip
        assert (mutant.path, changed) == ("some/code.py", [mutant.line])


def test_each_place_is_changed_once(package: Path) -> None:
    drawn = draw(["some/code.py"], 1, 99)
    assert len(drawn) == len(draw(["some"], 2, 99))
    assert len({mutant.code for mutant in drawn}) == len(drawn)
    assert [mutant.line for mutant in drawn] == sorted(mutant.line for mutant in drawn)


def test_the_seed_decides_and_other_lines_do_not(package: Path) -> None:
    drawn = draw(["some"], 7, 5)
    assert len(drawn) == 5
    assert draw(["some"], 7, 5) == drawn
    assert any(shown(draw(["some"], seed, 5)) != shown(drawn) for seed in range(7))
    (package / "some" / "code.py").write_text(CODE.replace("\n\nText", '\nOTHER = "text"\n\nText'))
    assert shown(draw(["some"], 7, 5)) == shown(drawn)
