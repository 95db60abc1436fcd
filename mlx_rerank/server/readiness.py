"""What keeps the first request, and those after a pause, from being slow on a GPU: kernels and memory are ready."""

from mlx_rerank.device import memory
from mlx_rerank.device.thread import device_thread, stay_ready
from mlx_rerank.pairs.batching import pad
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.samples import sample_pairs
from mlx_rerank.scoring.reranker import Reranker

_ROOM = 1 << 30  # bytes beside the weights, for batches
_IDLE = 300.0  # seconds without a request after which memory for batches is given back
_LENGTHS = (64, 40)  # tokens; MLX's attention has kernels for multiples of 32 and for others, with a mask and without
_SHORTER = 8  # tokens that a row has less, so that it is masked


def hold() -> None:
    """Keep the weights that are loaded now in the GPU's memory, and no longer those that were unloaded."""
    stay_ready(_IDLE)
    device_thread().submit(memory.keep_in_place, _ROOM).result()


def warm(reranker: Reranker) -> None:
    """Score some pairs, and a batch of each form that has kernels of its own on a GPU: they are loaded at first use.

    Raises:
        RerankError: they cannot be scored.
    """
    pairs, encoder = sample_pairs(), reranker.encoder
    reranker.logits(pairs[:8], show_progress=False)
    query, text = pairs[0][0], " ".join(document for _, document in pairs[:22])
    groups = []
    for length in _LENGTHS:
        longest = min(length, reranker.max_length)
        limits = Limits(longest), Limits(max(longest - _SHORTER, longest // 2))
        rows = [encoder.encode([(query, text)], limit).sequences[0] for limit in limits]
        groups += [[pad(rows[:1], encoder.pad_token_id)], [pad(rows, encoder.pad_token_id)]]
    for _ in reranker.engine.run(groups):
        pass
