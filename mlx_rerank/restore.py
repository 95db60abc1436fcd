"""From a converted directory back to the tensors of a Hugging Face checkpoint, in numpy alone.

The reverse of conversion, written apart from it so that each checks the other: packed weights are unpacked bit by bit
here, and by MLX there.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

_LAYER_MODULES = {
    "attention.out_proj": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up_proj": "intermediate.dense",
    "down_proj": "output.dense",
    "output_norm": "output.LayerNorm",
}


def state_dict(directory: Path) -> dict[str, np.ndarray]:
    """Return float32 tensors by their Hugging Face names.

    The token type row, which conversion adds to the positions, comes back as zeros.
    """
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    weights = _unpacked(load_file(directory / "model.safetensors"), config.get("quantization", {}))
    embeddings = "roberta.embeddings."
    state = {embeddings + "token_type_embeddings.weight": np.zeros((1, config["hidden_size"]), dtype=np.float32)}
    for name, value in weights.items():
        if name.startswith("embeddings."):
            state["roberta." + name.replace("embeddings.norm", "embeddings.LayerNorm")] = value
        elif name.startswith("head."):
            state["classifier." + name.removeprefix("head.")] = value
        else:
            _, n, rest = name.split(".", 2)
            state.update(_layer_tensors(f"roberta.encoder.layer.{n}.", rest, value))
    return state


def _layer_tensors(prefix: str, name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    """Return the tensors of one encoder layer that a converted parameter stands for: three, or one."""
    module, _, kind = name.rpartition(".")
    if module != "attention.qkv_proj":
        return {f"{prefix}{_LAYER_MODULES[module]}.{kind}": value}
    parts = zip(("query", "key", "value"), np.split(value, 3), strict=True)
    return {f"{prefix}attention.self.{part}.{kind}": np.ascontiguousarray(tensor) for part, tensor in parts}


def _unpacked(weights: dict[str, np.ndarray], quantization: dict) -> dict[str, np.ndarray]:
    """Return float32 weights, `scale * q + bias` where q was packed into 32-bit words, lowest bits first."""
    unpacked = {}
    for name, value in weights.items():
        path, _, kind = name.rpartition(".")
        if kind in ("scales", "biases"):
            continue
        if kind == "weight" and path + ".scales" in weights:
            own = quantization.get(path, quantization)
            bits = np.unpackbits(value.view(np.uint8), axis=-1, bitorder="little")
            q = bits.reshape(len(value), -1, own["bits"]) @ (1 << np.arange(own["bits"], dtype=np.int32))
            groups = q.reshape(len(value), -1, own["group_size"]).astype(np.float32)
            scales, biases = (weights[f"{path}.{part}"].astype(np.float32)[..., None] for part in ("scales", "biases"))
            value = (groups * scales + biases).reshape(len(value), -1)
        unpacked[name] = value.astype(np.float32)
    return unpacked
