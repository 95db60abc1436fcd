"""What is done with a model's weights beside training them: means, saving, and the dtype that a machine is fast in."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import XLMRobertaForSequenceClassification

COPIED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "NOTICE")


def averaged(average: dict[str, torch.Tensor], weights: Mapping[str, torch.Tensor], keep: float) -> None:
    """Move a running mean towards the weights, in place."""
    with torch.no_grad():
        for name, mean in average.items():
            mean.lerp_(weights[name].detach(), 1 - keep)


@contextmanager
def swapped(weights: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Put other values in the place of weights for a while."""
    own = {name: weight.detach().clone() for name, weight in weights.items()}
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(others[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(own[name])


def faster_dtype() -> torch.dtype:
    """Return float32 or bfloat16, whichever multiplies faster: bfloat16 does with AMX, and hardly without."""

    def seconds(dtype: torch.dtype) -> float:
        x, weight = torch.ones(2048, 384, dtype=dtype), torch.ones(1536, 384, dtype=dtype)
        times = []
        for _ in range(8):
            began = time.process_time()
            torch.nn.functional.linear(x, weight)
            times.append(time.process_time() - began)
        return min(times)

    return min((torch.float32, torch.bfloat16), key=seconds)


def save_model(model: XLMRobertaForSequenceClassification, start: Path, out: Path) -> None:
    """Write a model in float16. The directory is there when all of it is.

    Args:
        model: to write.
        start: directory whose tokenizer and notice go with it.
        out: directory to write.
    """
    part = out.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part, state_dict={n: t.detach().half() for n, t in model.state_dict().items()})
    (part / "model.safetensors").chmod(0o644)
    config = json.loads((part / "config.json").read_text()) | {"dtype": "float16"}  # it says the model's, float32
    (part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in COPIED:
        if (start / name).exists():
            shutil.copyfile(start / name, part / name)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
