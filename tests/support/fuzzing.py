"""Checkpoints of strangers by the thousand, each used as people use models: it may score or be refused, and no more.

    python tests/support/fuzzing.py --count 10000 --seed 1

A child process works through the cases, so that a crash ends it and not the run. Failures are crashes, hangs, memory
out of proportion, and errors that are none of mlx_rerank.errors.
"""

import argparse
import faulthandler
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from checkpoints import TINY, random_tensors, write_checkpoint
from mutations import mutate
from safetensors.numpy import save_file

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.convert import convert
from mlx_rerank.errors import RerankError

PAIRS = [("what is the panda", "the bear, an éater of 竹子 ﷺ aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"), ("is", "")]
LARGE = 500 * 2**20  # bytes that a case may add
_ROOM = 6 * 2**30  # bytes of addresses beside those of the start: what asks for more ends with an error
_TORCH = ("torch", "verify")  # sources and uses that need torch, whose import takes seconds


class Found(NamedTuple):
    """What a run found.

    Args:
        outcomes: how many cases ended how.
        failures: a line for each that must not be.
    """

    outcomes: Counter[str]
    failures: list[str]


def run(count: int, seed: int, *, patience: float = 5.0, torch: bool = False) -> Found:
    """Run cases in child processes, one after the other.

    Args:
        count: of cases.
        seed: of all that is random.
        patience: seconds that a case may take.
        torch: whether some need it.
    """
    found, next_case = Found(Counter(), []), 0
    while next_case < count:
        command = [sys.executable, __file__, "--child", "--count", str(count), "--first", str(next_case)]
        command += ["--seed", str(seed), "--patience", str(patience), *(["--torch"] if torch else [])]
        environment = os.environ | {"RUST_BACKTRACE": "0", "TOKENIZERS_PARALLELISM": "false"}
        with tempfile.TemporaryFile("w+") as errors:
            child = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, check=False
            )
            errors.seek(0)
            tail = errors.read()[-600:]
        rows = [json.loads(line) for line in child.stdout.splitlines()]
        begun = None
        for row in rows:
            if "outcome" not in row:
                begun = row
                continue
            begun = None
            found.outcomes[row["outcome"].partition(":")[0]] += 1
            if row["failed"]:
                found.failures.append(json.dumps(row))
        if child.returncode:
            what = f"exit code {child.returncode}"
            found.outcomes["ended"] += 1
            found.failures.append(json.dumps({**(begun or {"case": "none"}), "outcome": what, "stderr": tail}))
        next_case = (begun or rows[-1])["case"] + 1 if rows else count
    return found


def write_sources(directory: Path, torch: bool) -> list[Path]:
    """Write the checkpoints that are changed: Hugging Face's in its forms, and converted ones."""
    plain = write_checkpoint(directory / "plain")
    settings = {"model_type": "CrossEncoder", "prompts": {"query": "what "}, "default_prompt_name": "query"}
    settings["activation_fn"] = "torch.nn.modules.linear.Identity"
    (plain / "config_sentence_transformers.json").write_text(json.dumps(settings))
    sharded = shutil.copytree(plain, directory / "sharded")
    (sharded / "model.safetensors").unlink()
    tensors = random_tensors(TINY)
    shards = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for shard in set(shards.values()):
        save_file({name: value for name, value in tensors.items() if shards[name] == shard}, sharded / shard)
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    packing = Quantization(32, 4, "affine")
    whole = convert(plain, directory / "whole")
    packed = convert(plain, directory / "packed", layers=packing, embeddings=packing)
    return [plain, sharded, whole, packed, *([_with_torch(plain, directory / "torch")] if torch else [])]


def _with_torch(plain: Path, target: Path) -> Path:
    """Write the checkpoint as a pytorch_model.bin, in two formats."""
    import torch

    shutil.copytree(plain, target)
    state = {name: torch.from_numpy(value) for name, value in random_tensors(TINY).items()}
    torch.save(state, target / "pytorch_model.bin")
    (target / "model.safetensors").unlink()
    return target


def _score(directory: Path, scratch: Path) -> str:
    """Load a model and score."""
    scores = Reranker(directory).score(PAIRS)
    assert np.isfinite(scores).all()
    return "scored"


def _mapped(directory: Path, scratch: Path) -> str:
    """Score with embeddings in their file and a score cache, and explain."""
    reranker = Reranker(directory, embeddings="mapped", score_cache=scratch / "cache", dtype="float16")
    reranker.score(PAIRS)
    reranker.explain(*PAIRS[0], max_passes=4)
    return "scored"


def _compat(directory: Path, scratch: Path) -> str:
    """Score as sentence-transformers' users do."""
    from mlx_rerank import CrossEncoder

    CrossEncoder(str(directory)).predict(PAIRS)
    return "scored"


def _convert(directory: Path, scratch: Path) -> str:
    """Convert with a trimmed vocabulary and measured packing, or without."""
    packing = Quantization(32, 8, "affine")
    convert(directory, scratch / "plain", layers=packing)
    convert(directory, scratch / "trimmed", trim_vocab=["the panda is", "a bear"], target_bits=7.0)
    return "converted"


def _describe(directory: Path, scratch: Path) -> str:
    """Describe, audit, and gather what an upload would send."""
    from mlx_rerank.cli.describing import describe
    from mlx_rerank.convert.upload import contents
    from mlx_rerank.proof.audit import audit_checkpoint

    describe(str(directory))
    audit_checkpoint(str(directory), dtype="float16")
    contents(directory, "user/name")
    return "described"


def _train(directory: Path, scratch: Path) -> str:
    """Take a step of training, with the embeddings."""
    from mlx_rerank.train import TrainingOptions, train
    from mlx_rerank.train.examples import Example

    examples = [Example("what is the panda", ("the bear", "an ing"), (1.0, 0.0))]
    options = TrainingOptions(train_embeddings=True, batch_size=1)
    train(examples, scratch / "trained", model=directory, options=options, show_progress=False)
    return "trained"


def _verify(directory: Path, scratch: Path) -> str:
    """Compare with PyTorch."""
    from mlx_rerank.proof.verify import verify

    verify(directory, pairs=PAIRS)
    return "verified"


USES: dict[str, tuple[int, Callable[[Path, Path], str]]] = {  # with how often they are tried
    "score": (60, _score), "mapped": (15, _mapped), "compat": (6, _compat), "convert": (6, _convert),
    "describe": (10, _describe), "train": (6, _train), "verify": (2, _verify),
}  # fmt: skip


def _work(given: Any) -> None:
    """Work through cases, and tell of each when it begins and when it ends."""
    root = Path(tempfile.mkdtemp(prefix="fuzzing-"))
    try:
        sources = write_sources(root, given.torch)
        uses = {name: use for name, use in USES.items() if given.torch or name not in _TORCH}
        for name, (_, use) in uses.items():  # what is imported for the first time takes long
            (root / name).mkdir()
            with suppress(RerankError):  # only a converted model can be uploaded
                use(sources[0], root / name)
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + _ROOM, held + _ROOM))
        for case in range(given.first, given.count):
            _case(case, random.Random(f"{given.seed} {case}"), root / "case", sources, uses, given.patience)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _case(case: int, chance: random.Random, place: Path, sources: list[Path], uses: Any, patience: float) -> None:
    """Try one case."""
    directory, scratch = place / "model", place / "scratch"
    shutil.rmtree(place, ignore_errors=True)
    scratch.mkdir(parents=True)
    source = chance.choice(sources)
    shutil.copytree(source, directory, copy_function=os.link)
    said = [mutate(chance, directory) for _ in range(chance.choice((1, 1, 1, 2)))]
    name = chance.choices(list(uses), [often for often, _ in uses.values()])[0]
    row = {"case": case, "source": source.name, "use": name, "change": said}
    print(json.dumps(row), flush=True)
    before, begin, failed = _peak(), time.monotonic(), False
    faulthandler.dump_traceback_later(patience, exit=True)
    try:
        outcome = uses[name][1](directory, scratch)
    except RerankError as error:
        outcome = f"refused: {type(error).__name__} {str(error)[:200]}"
        failed = not str(error).isprintable()
    except BaseException as error:
        outcome, failed = f"error: {type(error).__name__} {traceback.format_exc()[-900:]}", True
    faulthandler.cancel_dump_traceback_later()
    grown = _peak() - before
    if grown > LARGE:
        outcome, failed = f"memory: {grown / 1e6:.0f} MB more, {outcome}", True
    print(
        json.dumps({**row, "outcome": outcome, "failed": failed, "seconds": round(time.monotonic() - begin, 3)}),
        flush=True,
    )


def _peak() -> int:
    """Return the most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patience", type=float, default=5.0, help="seconds that a case may take")
    parser.add_argument("--torch", action="store_true", help="also a pytorch_model.bin, and verify")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        _work(given)
        return
    found = run(given.count, given.seed, patience=given.patience, torch=given.torch)
    for failure in found.failures:
        print(failure)
    print(", ".join(f"{number} {name}" for name, number in found.outcomes.most_common()))
    print(f"{len(found.failures)} failures")
    sys.exit(bool(found.failures))


if __name__ == "__main__":
    main()
