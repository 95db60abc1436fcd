"""A contender's own process: it loads, scores one pair, and then scores what it is handed, one JSON line at a time.

Run by its path and not as a module of the package, so that a peer's process holds neither this package nor the BLAS
that it loads. Standard output carries the answers; whatever libraries print goes to standard error.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Score = Callable[[list[tuple[str, str]]], Any]  # pairs to logits
FIRST_PAIR = ("what do pandas eat?", "Giant pandas eat almost nothing but bamboo.")
_ONNX_BATCH = 32


def load_mlx_rerank(own: dict[str, Any]) -> tuple[Score, str]:
    """Return a scorer with this package, and the dtype it computes in."""
    from mlx_rerank import Reranker

    chosen = {key: own[key] for key in ("max_length", "dtype", "device") if own[key]}
    reranker = Reranker(own["directory"], **chosen, **own["options"])
    return lambda pairs: reranker.logits(pairs, show_progress=False).logits, reranker.dtype


def load_flag_embedding(own: dict[str, Any]) -> tuple[Score, str]:
    """Return a scorer with FlagEmbedding and its own defaults."""
    from FlagEmbedding import FlagReranker

    half = own["dtype"] == "float16"
    reranker: Any = FlagReranker(
        own["directory"], use_fp16=half, devices=own["device"], max_length=own["max_length"], **own["options"]
    )
    if not half:
        reranker.model.float()  # transformers 5 keeps a checkpoint's own dtype, and a CPU is slow in float16
    return reranker.compute_score, _dtype(reranker.model)


def load_sentence_transformers(own: dict[str, Any]) -> tuple[Score, str]:
    """Return a scorer with sentence-transformers and its own defaults, but for the activation."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(
        own["directory"], device=own["device"], max_length=own["max_length"],
        model_kwargs={"dtype": own["dtype"]}, **own["options"],
    )  # fmt: skip
    return lambda pairs: model.predict(pairs, activation_fn=lambda logits: logits), _dtype(model)


def load_reference(own: dict[str, Any]) -> tuple[Score, str]:
    """Return a scorer with transformers' model, as this package's reference runs it."""
    from mlx_rerank.proof.reference import ReferenceReranker

    reranker = ReferenceReranker(Path(own["directory"]), max_length=own["max_length"], dtype=own["dtype"])
    return lambda pairs: reranker.logits(pairs).logits, _dtype(reranker.model)


def load_onnxruntime(own: dict[str, Any]) -> tuple[Score, str]:
    """Return a scorer with an exported graph, in batches of 32 sorted by length, with this package's tokenizer."""
    import numpy as np

    from mlx_rerank.checkpoints.checkpoint import Checkpoint
    from mlx_rerank.pairs.batching import pad
    from mlx_rerank.pairs.limits import Limits

    runtime, directory, graph = importlib.import_module("onnxruntime"), Path(own["directory"]), own["options"]["graph"]
    if not Path(graph).exists():  # at the first start, which is not measured
        code = "import sys; from mlx_rerank.bench.onnx import export_onnx; export_onnx(*sys.argv[1:])"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", code, str(directory), graph], check=True, env=environment)
    encoder, limits = Checkpoint.open(directory).encoder(), Limits(own["max_length"])
    options = runtime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])  # it does not read the variable itself
    session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def score(pairs: list[tuple[str, str]]) -> Any:
        encoded = encoder.encode(pairs, limits)
        order, logits = np.argsort(encoded.lengths), np.empty(len(encoded.sequences), np.float32)
        for start in range(0, len(order), _ONNX_BATCH):
            batch = order[start : start + _ONNX_BATCH]
            padded = pad([encoded.sequences[i] for i in batch], encoder.pad_token_id)
            mask = np.ones_like(padded.input_ids) if padded.attention_mask is None else padded.attention_mask
            feed = {"input_ids": padded.input_ids, "attention_mask": mask, "token_type_ids": padded.segments}
            given = {name: array.astype(np.int64) for name, array in feed.items() if array is not None}
            logits[batch] = session.run(None, given)[0][:, 0]
        return logits[encoded.inverse]

    return score, "float32"


LOADERS: dict[str, Callable[[dict[str, Any]], tuple[Score, str]]] = {
    "mlx_rerank": load_mlx_rerank,
    "flag_embedding": load_flag_embedding,
    "sentence_transformers": load_sentence_transformers,
    "reference": load_reference,
    "onnxruntime": load_onnxruntime,
}


def main() -> None:
    """Load the contender that the only argument describes, and answer until standard input ends."""
    package = Path(__file__).resolve().parents[1]
    sys.path[:] = [*(path for path in sys.path if Path(path).resolve() != Path(__file__).parent), str(package.parent)]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    own = json.loads(sys.argv[1])
    score, dtype = LOADERS[own["library"]](own)
    score([FIRST_PAIR])
    print(json.dumps({"computed_in": dtype, "mlx": _mlx_memory()}), file=answers, flush=True)
    for line in sys.stdin:
        pairs = [(query, document) for query, document in json.loads(line)]
        start = time.perf_counter()
        logits = score(pairs)
        seconds = time.perf_counter() - start
        held = {"mlx": _mlx_memory(), "process_peak": _peak()}
        answer = {"seconds": seconds, "logits": [float(logit) for logit in logits], **held}
        print(json.dumps(answer), file=answers, flush=True)


def _mlx_memory() -> dict[str, int] | None:
    """Return the bytes that MLX holds, held at most, and keeps to use again; None in a process without it."""
    mx: Any = sys.modules.get("mlx.core")
    if mx is None:
        return None
    return {"active": mx.get_active_memory(), "peak": mx.get_peak_memory(), "cache": mx.get_cache_memory()}


def _peak() -> int:
    """Return the most bytes that this process held; as `device.memory` does, which a peer's process does not load."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _dtype(model: Any) -> str:
    """Return the dtype of a torch model's weights."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


if __name__ == "__main__":
    main()
