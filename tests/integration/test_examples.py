"""The examples, run as their readers run them, on some of the questions."""

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*_rerank.py"))


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of the frameworks
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_prints_what_reranking_gains(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)  # as Python does for a script
    monkeypatch.setattr(sys, "argv", [str(script), "--questions", "3"])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    lines = r"3 questions, nDCG@10\nfirst stage +([\d.]+)\nreranked +([\d.]+)\ngain +([+-][\d.]+)\n"
    found = re.search(lines, printed)
    assert found, printed
    before, after, gain = map(float, found.groups())
    assert after - before == pytest.approx(gain, abs=1e-3)
    assert 0.5 < before < 1
    assert 0.5 < after < 1
    assert gain > -0.1  # a ranking in another order than its scores' would lose far more


def test_every_adapter_has_an_example() -> None:
    adapters = Path(__file__).parents[2] / "mlx_rerank" / "integrations"
    names = {path.stem for path in adapters.glob("*.py")} - {"__init__"}
    assert {script.stem for script in SCRIPTS} == {f"{name}_rerank" for name in names}
