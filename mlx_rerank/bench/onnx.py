"""A checkpoint as a graph for onnxruntime."""

from pathlib import Path

from mlx_rerank.device.optional import imported
from mlx_rerank.proof.reference import ReferenceReranker

_PAIRS = [("what is it?", "a panda"), ("what is it?", "a giant panda, which is a bear")]  # of two lengths: with padding


def export_onnx(directory: Path | str, path: Path | str) -> None:
    """Write a Hugging Face checkpoint as a graph for onnxruntime.

    Args:
        directory: of the checkpoint.
        path: of the file; it takes input_ids, attention_mask and, where the model knows segments, token_type_ids, all
            int64 [B, L], and gives logits float32 [B, 1].

    Raises:
        CheckpointError: the directory's files cannot be used.
        MissingDependencyError: torch, onnx or onnxscript is not installed.
    """
    torch = imported("torch")
    for name in ("onnx", "onnxscript"):
        imported(name, extra=None)
    reference = ReferenceReranker(directory)
    inputs = reference.inputs(reference.rows(_PAIRS))
    if not inputs["token_type_ids"].any():
        inputs.pop("token_type_ids")
    any_size = dict.fromkeys(inputs, dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC))
    # The older exporter bakes the shape of its example into the graph; its logits are then wrong.
    torch.onnx.export(reference.model, kwargs=inputs, f=str(path), dynamo=True, dynamic_shapes=any_size, verbose=False)
