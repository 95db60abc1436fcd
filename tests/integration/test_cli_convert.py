"""Conversion at the command line: its options, and those that contradict each other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run, run_here

from mlx_rerank import cli
from mlx_rerank.checkpoints.packing import Quantization


def test_convert_and_info(tiny: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    options = ["-q", "--q-embedding-bits", "4", "--q-embedding-group-size", "32"]
    assert f"wrote {target}" in run_here("convert", "--hf-path", str(tiny), "--mlx-path", target, *options).stderr
    facts = json.loads(run_here("info", target, "--json").stdout)
    assert facts["format"].startswith("converted by mlx-rerank")
    assert facts["quantization"]["bits"] == 8
    assert facts["quantization"]["embeddings.word_embeddings"]["bits"] == 4
    assert facts["max_length"] == 64
    assert "parameters" in run_here("info").stdout
    run("rank", "panda", "--model", target, stdin="the bear\n")


def test_convert_py_is_the_same_command(tiny: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "convert.py"
    arguments = ["--hf-path", str(tiny), "--mlx-path", str(tmp_path / "target"), "--dtype", "float32"]
    subprocess.run([sys.executable, str(script), *arguments], check=True, capture_output=True)
    assert json.loads((tmp_path / "target" / "config.json").read_text())["dtype"] == "float32"


def test_quantization_options_reach_the_converter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import mlx_rerank.convert as module

    seen = {}
    monkeypatch.setattr(module, "convert", lambda *_, **options: seen.update(options) or tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["convert", "--hf-path", "x", "-q", "--q-bits", "6", "--q-group-size", "32"])
    assert seen["layers"] == seen["embeddings"] == Quantization(32, 6, "affine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--q-bits", "4"], "only along with --quantize"),
        (["--q-target-bits", "0"], "only along with --quantize"),
        (["-q", "--q-target-bits", "5"], "--q-target-bits is the aim of --q-recipe auto"),
        (["-q", "--q-recipe", "auto", "--q-bits", "4"], "--q-recipe auto chooses bits, groups and mode itself"),
        (["-q", "--q-recipe", "auto", "--q-target-bits", "nan"], "not nan"),
        (["-q", "--q-mode", "none", "--q-embedding-mode", "none"], "leave nothing to pack"),
        (["-q", "--q-mode", "none", "--q-bits", "3", "--q-embedding-mode", "affine"], "the mode none packs nothing"),
        (["-q", "--q-embedding-mode", "none", "--q-embedding-bits", "4"], "the mode none packs nothing"),
        (["-q", "--q-mode", "gptq"], "mode 'gptq' is not one of affine, mxfp4, mxfp8, nvfp4"),
        (["-q", "--q-mode", "nvfp4", "--q-bits", "8"], "bits 8 is not one of 4 (mode nvfp4)"),
    ],
)
def test_packing_options_that_contradict_each_other(
    tiny: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    arguments = ["convert", "--hf-path", str(tiny), "--mlx-path", str(tmp_path / "target"), *options]
    assert message in run_here(*arguments, code=1).stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "card"),
    [
        (
            ["--q-bits", "4"],
            "encoder packed to 4 bits in groups of 64, word embeddings packed to 4 bits in groups of 64",
        ),
        (
            ["--q-mode", "nvfp4"],
            "encoder packed to 4 bits in groups of 16 (nvfp4), word embeddings packed to 4 bits in",
        ),
        (["--q-embedding-mode", "none"], "encoder packed to 8 bits in groups of 64 |"),
        (
            ["--q-mode", "mxfp4", "--q-embedding-mode", "affine"],
            "(mxfp4), word embeddings packed to 8 bits in groups of 64",
        ),
        (["--q-recipe", "auto", "--q-target-bits", "8.5"], "word embeddings packed to"),
    ],
)
def test_packing_options(tiny: Path, tmp_path: Path, options: list[str], card: str) -> None:
    run_here("convert", "--hf-path", str(tiny), "--mlx-path", str(tmp_path / "target"), "-q", *options)
    assert card in (tmp_path / "target" / "README.md").read_text()
