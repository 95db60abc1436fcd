"""A checkpoint as a graph for onnxruntime."""

from pathlib import Path

from mlx_rerank.device.optional import imported
from mlx_rerank.proof.reference import ReferenceReranker


def export_onnx(directory: Path | str, path: Path | str) -> None:
    """Write a Hugging Face checkpoint as a graph for onnxruntime.

    Args:
        directory: of the checkpoint.
        path: of the file; it takes input_ids and attention_mask int64 [B, L] and gives logits float32 [B, 1].

    Raises:
        CheckpointError: the directory's files cannot be used.
        MissingDependencyError: torch, onnx or onnxscript is not installed.
    """
    torch = imported("torch")
    for name in ("onnx", "onnxscript"):
        imported(name, "benchmark")
    ids = torch.tensor([[0, 5, 2, 2, 7, 2], [0, 5, 2, 2, 2, 1]])  # with padding, so that the mask is not left out
    inputs = {"input_ids": ids, "attention_mask": (ids != 1).long()}
    any_size = dict.fromkeys(inputs, dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC))
    # The exporter before this one bakes the shape of its example into the graph, whose logits are then wrong.
    model = ReferenceReranker(Path(directory)).model
    torch.onnx.export(model, kwargs=inputs, f=str(path), dynamo=True, dynamic_shapes=any_size, verbose=False)
