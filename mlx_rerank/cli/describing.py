"""What there is to know about a model and the machine that would run it."""

import math
import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.config import conversion_record
from mlx_rerank.checkpoints.hub import commit_of
from mlx_rerank.checkpoints.mapped import choose_embeddings, weights_bytes
from mlx_rerank.checkpoints.tensors import open_tensors
from mlx_rerank.device import blas, memory
from mlx_rerank.device.names import parse_device
from mlx_rerank.device.wheel import wheels
from mlx_rerank.dtypes import default_dtype, dtype_name
from mlx_rerank.pairs.samples import sample_pairs
from mlx_rerank.scoring.reranker import Reranker


def describe(model: str, revision: str | None = None) -> dict[str, Any]:
    """Return facts about a model and this machine, by name; no weight is read.

    Raises:
        CheckpointNotFoundError: the model's name leads nowhere.
        CheckpointError: its files cannot be used.
        MissingDependencyError: they need torch to be read, and it is not installed.
    """
    checkpoint = Checkpoint.open(model, revision=revision)
    shape, done, directory = checkpoint.shape, conversion_record(checkpoint.raw), checkpoint.directory
    tensors = open_tensors(directory)
    device = parse_device(None)
    dtype, on_cpu = default_dtype(device), device.type == device.type.cpu
    return {
        "model": model,
        "directory": str(directory),
        "format": f"converted by mlx-rerank {done.get('version')}" if checkpoint.converted else "Hugging Face",
        "source": done.get("source", model),
        "revision": done.get("revision") or commit_of(directory),
        "family": checkpoint.family.name,
        "scores": f"{checkpoint.mapping.name} of a logit of {checkpoint.family.score_rule}",
        "makers_activation": checkpoint.settings.activation,
        "layers": shape.num_hidden_layers,
        "hidden_size": shape.hidden_size,
        "attention_heads": shape.num_attention_heads,
        "vocabulary": shape.vocab_size,
        "max_length": shape.max_length,
        "parameters": sum(map(math.prod, checkpoint.family.source_shapes(shape).values())),
        "stored_dtype": checkpoint.raw.get("dtype") or checkpoint.raw.get("torch_dtype"),
        "quantization": checkpoint.raw.get("quantization"),
        "stored_bytes": sum(tensor.nbytes for tensor in tensors.values()),
        "device": "cpu" if on_cpu else "gpu",
        "default_dtype": dtype_name(dtype),
        "embeddings": choose_embeddings(checkpoint, dtype, keep_quantized=not on_cpu, wanted=None),
        "weights_bytes": weights_bytes(checkpoint, dtype, not on_cpu),
        "blas": blas.loaded(),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in ("mlx-rerank", "mlx", "tokenizers", "numpy")},
        "wheels": wheels(),
    }


def measure(model: str, revision: str | None = None) -> dict[str, Any]:
    """Load a model, score one pair, and return what MLX and this process then hold, by name, in bytes.

    Raises:
        CheckpointNotFoundError: the model's name leads nowhere.
        CheckpointError: its files cannot be used.
        MissingDependencyError: they need torch to be read, and it is not installed.
    """
    reranker = Reranker(model, revision=revision)
    reranker.logits(sample_pairs()[:1], show_progress=False)
    return asdict(memory.usage())
