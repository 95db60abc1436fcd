"""What training tools leave in a directory that is no checkpoint yet, and how it becomes one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlx_rerank.checkpoints.config import read_config, read_object
from mlx_rerank.checkpoints.files import ADAPTER_FILE, CONFIG_FILE
from mlx_rerank.errors import CheckpointError

_OTHERS = {  # by a pattern of files
    "tf_model.h5": "weights of TensorFlow",
    "flax_model.msgpack": "weights of Flax",
    "*.gguf": "weights of llama.cpp",
    "*.onnx": "a model of ONNX",
    "onnx/*.onnx": "a model of ONNX",
    "openvino*.xml": "a model of OpenVINO",
    "*.ckpt": "a checkpoint of Lightning",
    "*.safetensors": "safetensors of another name",
    "*.bin": "files of PyTorch of another name",
    "*.pt": "files of PyTorch of another name",
}


def config_of(directory: Path) -> dict[str, Any]:
    """Return the config.json of a directory.

    Raises:
        CheckpointError: it cannot be read; or there is none, and the message says what is there instead.
    """
    try:
        return read_config(directory)
    except CheckpointError as error:
        if (directory / CONFIG_FILE).exists():
            raise
        raise CheckpointError(f"{error}{instead(directory)}") from None


def instead(directory: Path) -> str:
    """Return what a directory holds in place of a model's files, and what to do, as the end of a message.

    Raises:
        CheckpointError: the description of an adapter cannot be read.
    """
    return next(_found(directory), "")


def _found(directory: Path) -> Iterator[str]:
    """Yield what is known of a directory, the most telling first."""
    adapter = read_object(directory / ADAPTER_FILE)
    if adapter is not None:
        kind, base = adapter.get("peft_type"), adapter.get("base_model_name_or_path")
        yield (
            f"; it is an adapter ({kind}) of {base!r}: merge the two "
            "with peft.AutoPeftModelForSequenceClassification.from_pretrained(adapter, num_labels=1).merge_and_unload()"
            ".save_pretrained(merged), and copy the tokenizer's files to that directory"
        )
    if (directory / "zero_to_fp32.py").is_file():
        yield "; it holds parts that DeepSpeed saved: join them there with `python -m deepspeed.utils.zero_to_fp32 . .`"
    for parts in sorted(directory.glob("pytorch_model_fsdp_*")):
        yield f"; it holds parts that FSDP saved: join them with `accelerate merge-weights {parts} {directory}`"
    runs = sorted(path.parent.relative_to(directory) for path in directory.glob(f"*/{CONFIG_FILE}"))
    if runs:
        yield f"; give the directory below it that is meant: {', '.join(map(str, runs[:5]))}"
    for pattern, what in _OTHERS.items():
        for path in sorted(directory.glob(pattern)):
            yield f"; it holds {what} ({path.name}): save the model with transformers' save_pretrained"
