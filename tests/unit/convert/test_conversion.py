"""Conversion: what is written, what is refused, and that nothing is ever half written."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint

import mlx_rerank
from mlx_rerank import Reranker
from mlx_rerank.checkpoints import weights
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.convert import convert
from mlx_rerank.errors import (
    CheckpointError,
    InputError,
    OutputError,
    OutputExistsError,
    UnsupportedModelError,
    WeightsError,
)

PAIRS = [("panda", "the bear"), ("what is panda", ""), ("熊", "a bear is the panda")]


def test_what_is_written(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny, source)
    (source / "NOTICE").write_text("whose it is")
    (source / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: [en, zh]\n---\n# Card\n")
    target = convert(source, tmp_path / "target", dtype="bfloat16")
    assert sorted(path.name for path in target.iterdir()) == [
        "NOTICE", "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    config = json.loads((target / "config.json").read_text())
    assert config["mlx_rerank"] == {
        "version": mlx_rerank.__version__,
        "source": "source",
        "revision": None,
        "family": "xlm-roberta",
        "frame": {"start": [0], "middle": [2, 2], "end": [2], "pad": 1, "hidden": 3, "segments": False},
        "score_rule": "the first token",
        "mapping": "sigmoid",
    }
    assert config["dtype"] == "bfloat16"
    assert str(tmp_path) not in (target / "config.json").read_text() + (target / "README.md").read_text()
    card = (target / "README.md").read_text()
    assert "pipeline_tag: text-ranking" in card
    assert "license: apache-2.0" in card
    assert "- zh" in card
    loaded = mx.load(str(target / "model.safetensors"))
    assert isinstance(loaded, dict)
    assert {value.dtype for value in loaded.values()} == {mx.bfloat16}
    assert loaded["layers.0.attention.qkv_proj.weight"].shape == (192, 64)
    assert target.stat().st_mode == source.stat().st_mode  # as any directory made by hand


@pytest.mark.numeric
def test_a_converted_model_scores_as_its_source(tiny: Path, tmp_path: Path) -> None:
    target = convert(tiny, tmp_path / "nested" / "target", dtype="float32")
    found, expected = (Reranker(path, deterministic=True).score(PAIRS) for path in (target, tiny))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.numeric
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_converting_and_loading_in_half_precision_agree(tiny: Path, tmp_path: Path, dtype: str) -> None:
    target = convert(tiny, tmp_path / "target", dtype=dtype)
    expected = Reranker(tiny, dtype=dtype, device="cpu").score(PAIRS)
    np.testing.assert_array_equal(Reranker(target, dtype=dtype, device="cpu").score(PAIRS), expected)


def test_an_existing_target_is_left_alone(tiny: Path, tmp_path: Path) -> None:
    for name in ("file", "directory", "link"):
        path = tmp_path / name
        {"file": path.touch, "directory": path.mkdir, "link": lambda p=path: p.symlink_to("nowhere")}[name]()
        with pytest.raises(OutputExistsError, match="exists: remove it"):
            convert(tiny, path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "file", "link"]


@pytest.mark.parametrize("name", ["~nobody-of-that-name/x", "a\0b", "x" * 300])
def test_a_target_that_cannot_be(tiny: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"cannot be written: .*; name another directory"):
        convert(tiny, name)


def test_a_full_disk(tiny: Path, tmp_path: Path) -> None:
    code = (
        "import resource, sys; from mlx_rerank.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "main(['convert', '--hf-path', sys.argv[1], '--mlx-path', sys.argv[2]])"
    )
    command = [sys.executable, "-c", code, str(tiny), str(tmp_path / "target")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 1
    assert result.stderr.startswith(f"mlx-rerank: {tmp_path / 'target'} cannot be written: [write] Unable to write")
    assert not list(tmp_path.iterdir())


def test_targets_that_cannot_be_written(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        convert(tiny, tmp_path / "file" / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(InputError, match="target_bits chooses how layers and embeddings are packed"):
        convert(tiny, tmp_path / "target", embeddings=Quantization(32, 4, "affine"), target_bits=4.5)


def test_a_broken_model_card_is_passed_over(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny, source)
    (source / "README.md").write_text("---\nlicense: [mit\n---\n")
    assert "library_name: mlx" in (convert(source, tmp_path / "target") / "README.md").read_text()


def test_refusals_leave_nothing_behind(tiny: Path, tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    longformer = write_checkpoint(sources / "longformer", TINY | {"model_type": "longformer"})
    nli = write_checkpoint(sources / "nli", TINY | {"id2label": {"0": "no", "1": "yes"}})
    damaged = {**random_tensors(TINY), "extra": np.zeros(3, np.float32)}
    unexpected = write_checkpoint(sources / "unexpected", tensors=damaged)
    no_tokenizer = write_checkpoint(sources / "no_tokenizer")
    (no_tokenizer / "tokenizer.json").unlink()
    converted = convert(tiny, sources / "converted")
    output = tmp_path / "output"
    output.mkdir()
    for source, error, message in (
        (longformer, UnsupportedModelError, "model_type 'longformer'"),
        (nli, UnsupportedModelError, "2 labels"),
        (unexpected, WeightsError, "unexpected: extra"),
        (no_tokenizer, CheckpointError, "no tokenizer.json"),
        (converted, CheckpointError, "was converted already"),
        (output, CheckpointError, "no config.json"),
    ):
        with pytest.raises(error, match=message):
            convert(source, output / "target")
    with pytest.raises(InputError, match="dtype 'int8'"):
        convert(tiny, output / "target", dtype="int8")
    with pytest.raises(InputError, match="bits 7 is not one of"):
        convert(tiny, output / "target", layers=Quantization(32, 7, "affine"))
    assert list(output.iterdir()) == []


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interruption_leaves_nothing_behind(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def save(path: Path, model: object) -> None:
        path.write_bytes(b"half a file")
        raise error

    monkeypatch.setattr(weights, "save", save)
    with pytest.raises(type(error)):
        convert(tiny, tmp_path / "new" / "parents" / "target")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing_behind(tiny: Path, tmp_path: Path, sent: signal.Signals, code: int) -> None:
    slow = "import time; from mlx_rerank import cli\n"
    slow += "from mlx_rerank.checkpoints import weights; weights.save = lambda *_: time.sleep(60); cli.main()"
    output = tmp_path / "output"
    output.mkdir()
    arguments = ["convert", "--hf-path", str(tiny), "--mlx-path", str(output / "target")]
    process = subprocess.Popen([sys.executable, "-c", slow, *arguments], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not list(output.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(list(output.iterdir())) == 1  # the temporary directory
    process.send_signal(sent)
    _, printed = process.communicate(timeout=30)
    assert (process.returncode, printed) == (code, b"")
    assert list(output.iterdir()) == []
