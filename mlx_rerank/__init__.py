"""Cross-encoder reranking on Apple Silicon, through MLX, in one dtype throughout."""

import importlib
from typing import TYPE_CHECKING, Any

from mlx_rerank.device import blas
from mlx_rerank.version import __version__

if TYPE_CHECKING:
    from mlx_rerank.compat.flag_auto import FlagAutoReranker
    from mlx_rerank.compat.flagembedding import FlagReranker
    from mlx_rerank.compat.sentence_transformers import CrossEncoder
    from mlx_rerank.pairs.windows import Windows
    from mlx_rerank.scoring.explanation import Explanation, Highlight
    from mlx_rerank.scoring.reranker import Reranker
    from mlx_rerank.scoring.results import RankedDocument, ScoredPair

__all__ = [
    "CrossEncoder",
    "Explanation",
    "FlagAutoReranker",
    "FlagReranker",
    "Highlight",
    "RankedDocument",
    "Reranker",
    "ScoredPair",
    "Windows",
    "__version__",
]

_MODULES = {
    "CrossEncoder": "compat.sentence_transformers",
    "Explanation": "scoring.explanation",
    "FlagAutoReranker": "compat.flag_auto",
    "FlagReranker": "compat.flagembedding",
    "Highlight": "scoring.explanation",
    "RankedDocument": "scoring.results",
    "Reranker": "scoring.reranker",
    "ScoredPair": "scoring.results",
    "Windows": "pairs.windows",
}

blas.preload()  # on Linux, and only before MLX is imported, which happens on first use of a name below


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
