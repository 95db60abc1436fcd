"""What the server tells about its models."""

from importlib.metadata import version
from typing import Any

from mlx_rerank.checkpoints.hub import public_name
from mlx_rerank.server.handler import Handler
from mlx_rerank.server.pool import Pool
from mlx_rerank.server.served import Served


def models(pool: Pool, *, infinity: bool = False) -> dict[str, Any]:
    """Return the list of models, in OpenAI's shape, with what is known of each since it was first loaded.

    Args:
        pool: the models.
        infinity: say what infinity's client insists on.
    """
    more = {"owned_by": "infinity", "backend": "mlx", "stats": {}} if infinity else {}
    return {"object": "list", "data": [model(served) | more for served in pool]}


def info(handler: Handler, *, tei: bool = False) -> dict[str, Any]:
    """Return what TEI's clients ask for: the default model and the limits.

    Args:
        handler: of the models.
        tei: say no more than TEI does.

    Raises:
        RefusedError: the model is not loaded yet.
    """
    handler.pool.require_ready()
    served = handler.pool.default
    reranker, bounds = served.reranker, handler.bounds
    return {
        "model_id": served.spec.name,
        "model_sha": None,
        "model_dtype": reranker and reranker.dtype,
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_input_length": reranker and reranker.max_length,
        "max_batch_tokens": reranker and reranker.token_budget,
        "max_client_batch_size": bounds.documents,
        "auto_truncate": True,
        "version": version("mlx-rerank"),
    } | ({} if tei else {"models": models(handler.pool)["data"]})


def model(served: Served) -> dict[str, Any]:
    """Return what is known of a model; `model_type` is for Xinference's clients, `max_model_len` for vLLM's."""
    reranker = served.reranker
    return {
        "id": served.spec.name,
        "object": "model",
        "created": 0,
        "owned_by": "mlx-rerank",
        "source": public_name(served.spec.model),
        "dtype": reranker.dtype if reranker else served.spec.dtype,
        "device": reranker and reranker.device,
        "max_length": reranker and reranker.max_length,
        "max_model_len": reranker and reranker.max_length,
        "model_type": "rerank",
        "loaded": served.in_memory,
    }
