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
    """Return float32 weights; packed ones are codes in 32-bit words, lowest bits first, and a scale for each group."""
    unpacked = {}
    for name, value in weights.items():
        path, _, kind = name.rpartition(".")
        if kind in ("scales", "biases"):
            continue
        if kind == "weight" and path + ".scales" in weights:
            own = quantization.get(path, quantization)
            bits = np.unpackbits(value.view(np.uint8), axis=-1, bitorder="little")
            codes = bits.reshape(len(value), -1, own["bits"]) @ (1 << np.arange(own["bits"], dtype=np.int32))
            groups = codes.reshape(len(value), -1, own["group_size"])
            scales, biases = weights[path + ".scales"], weights.get(path + ".biases")
            value = _values(groups, scales, biases, own.get("mode", "affine")).reshape(len(value), -1)
        unpacked[name] = value.astype(np.float32)
    return unpacked


def _values(codes: np.ndarray, scales: np.ndarray, biases: np.ndarray | None, mode: str) -> np.ndarray:
    """Return float32 values of codes [rows, groups, group size].

    Source: OCP Microscaling Formats specification 1.0, tables 1, 5 and 7; nvfp4 has E4M3 scales.
    """
    if mode == "affine":
        assert biases is not None
        return codes * scales.astype(np.float32)[..., None] + biases.astype(np.float32)[..., None]
    elements = _small_floats(4, 3) if mode == "mxfp8" else _small_floats(2, 1)
    if mode == "nvfp4":
        return elements[codes] * _small_floats(4, 3)[scales][..., None]
    return elements[codes] * np.exp2(scales.astype(np.float32) - 127)[..., None]


def _small_floats(exponent_bits: int, mantissa_bits: int) -> np.ndarray:
    """Return the float32 value of every code of a small float: sign, exponent, mantissa; no infinities."""
    code = np.arange(1 << (1 + exponent_bits + mantissa_bits))
    mantissa = (code & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1)
    bias = (1 << (exponent_bits - 1)) - 1
    size = np.where(exponent == 0, mantissa * 2.0 ** (1 - bias), (1 + mantissa) * np.exp2(exponent - bias))
    return np.where(code >> (exponent_bits + mantissa_bits), -size, size).astype(np.float32)
