"""Conversion: what is written, what is refused, and that nothing is ever half written."""

import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
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
        "NOTICE", "README.md", "config.json", "model.safetensors", "tokenizer.json",
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


MEASURE = """
import re, resource, sys
from pathlib import Path
import mlx.core as mx
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.convert import convert

def peak():  # bytes, of the whole process
    status = Path("/proc/self/status")
    if status.exists():  # where ru_maxrss would count what the parent had before this program was started
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

source, target, what = sys.argv[1:]
if what == "packed":
    sys.modules["torch"] = None  # which transformers would load as well
    import mlx_lm.utils  # loads transformers, whose size is not the converter's
before = peak()
if what in ("loaded", "loaded again", "mapped"):
    Checkpoint.open(Path(source)).load(mx.float16, keep_quantized=False, words=what != "mapped")
else:
    convert(source, target, layers=Quantization(64, 4, "affine") if what == "packed" else None)
print(peak() - before, mx.get_peak_memory())
"""


WAYS = ["cast", "packed", "loaded", "loaded again", "mapped"]
LARGE = TINY | {"vocab_size": 20_000, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 16}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 243 MB, all of whose layers have the same weights: random numbers take their time."""
    once = random_tensors(LARGE | {"num_hidden_layers": 1})
    tensors = {
        name.replace("layer.0.", f"layer.{n}."): once[name] for n in range(LARGE["num_hidden_layers"]) for name in once
    }
    return write_checkpoint(tmp_path_factory.mktemp("large"), LARGE, tensors)


@pytest.fixture(scope="module")
def peaks(large: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """The peak of the process, and of MLX's arrays, in a process for each way, two of them at a time."""
    directory = tmp_path_factory.mktemp("peaks")
    again = convert(large, directory / "converted", dtype="float32")

    def measure(what: str) -> list[int]:
        places = [str(again if what == "loaded again" else large), str(directory / what)]
        command = [sys.executable, "-c", MEASURE, *places, what]
        return [*map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())]

    with ThreadPoolExecutor(2) as two_at_a_time:
        return dict(zip(WAYS, two_at_a_time.map(measure, WAYS), strict=True))


@pytest.mark.parametrize("what", WAYS)
def test_peak_memory_is_about_the_output(large: Path, peaks: dict[str, list[int]], what: str) -> None:
    stored = (large / "model.safetensors").stat().st_size  # float32
    largest = 20_000 * 512 * 4
    output = stored * (0.16 if what == "packed" else 0.5)
    if what == "mapped":
        output, largest = output - largest / 2, 2048 * 512 * 4
    slack = {"packed": 25e6, "mapped": 18e6}.get(what, 12e6)  # the process itself, and the search for scales
    process, arrays = peaks[what]
    assert process < output + largest + slack
    if what not in ("cast", "packed"):
        assert output * 0.99 < arrays < output + largest + 1e6  # what is kept, and one tensor
