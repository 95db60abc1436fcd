"""The peak of memory of converting and loading, each in a process of its own."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from checkpoints import TINY, random_tensors, tiny_tokenizer, write_checkpoint

from mlx_rerank.convert import convert

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
before = peak()
if what in ("loaded", "loaded again", "mapped"):
    Checkpoint.open(Path(source)).load(mx.float16, keep_quantized=False, words=what != "mapped")
else:
    convert(source, target, layers=Quantization(64, 4, "affine") if what == "packed" else None)
print(peak() - before, mx.get_peak_memory())
"""


WAYS = ["cast", "packed", "loaded", "loaded again", "mapped"]
LARGE = TINY | {"vocab_size": 20_000, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 10}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 167 MB, all of whose layers have the same weights: random numbers take their time."""
    once = random_tensors(LARGE | {"num_hidden_layers": 1})
    tensors = {
        name.replace("layer.0.", f"layer.{n}."): once[name] for n in range(LARGE["num_hidden_layers"]) for name in once
    }
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<{i}>" for i in range(10_000)])  # or it would be taken for another model's
    return write_checkpoint(tmp_path_factory.mktemp("large"), LARGE, tensors, tokenizer)


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
    largest = LARGE["vocab_size"] * 512 * 4
    output = stored * (0.16 if what == "packed" else 0.5)
    if what == "mapped":
        output, largest = output - largest / 2, 2048 * 512 * 4
    slack = {"packed": 25e6, "mapped": 18e6}.get(what, 12e6)  # the process itself, and the search for scales
    process, arrays = peaks[what]
    assert process < output + largest + slack
    if what not in ("cast", "packed"):
        assert output * 0.99 < arrays < output + largest + 1e6  # what is kept, and one tensor
