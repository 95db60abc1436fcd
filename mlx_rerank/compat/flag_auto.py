"""FlagAutoReranker: FlagEmbedding's choice of a class by the model's name, for programs that change an import."""

from pathlib import PurePath
from typing import Any

from mlx_rerank.compat.flagembedding import FlagReranker
from mlx_rerank.errors import InputError, UnsupportedModelError
from mlx_rerank.pairs.switches import require_boolean

Face = type[FlagReranker] | str  # a class, or what is missing here

_ENCODER: Face = FlagReranker
_DECODER: Face = "FlagLLMReranker"
_LAYERWISE: Face = "LayerWiseFlagLLMReranker"
_LIGHTWEIGHT: Face = "LightWeightFlagLLMReranker"

_CLASSES: dict[str, Face] = {
    "encoder-only-base": _ENCODER,
    "decoder-only-base": _DECODER,
    "decoder-only-layerwise": _LAYERWISE,
    "decoder-only-lightweight": _LIGHTWEIGHT,
}
_MODELS: dict[str, Face] = {
    "bge-reranker-base": _ENCODER,
    "bge-reranker-large": _ENCODER,
    "bge-reranker-v2-m3": _ENCODER,
    "bge-reranker-v2-gemma": _DECODER,
    "bge-reranker-v2-minicpm-layerwise": _LAYERWISE,
    "bge-reranker-v2.5-gemma2-lightweight": _LIGHTWEIGHT,
    "jina-reranker-v2-base-multilingual": _ENCODER,
    "gte-multilingual-reranker-base": _ENCODER,
    "bce-reranker-base_v1": _ENCODER,
    "jina-reranker-v1-turbo-en": "a model with ALiBi instead of positions",
}


class FlagAutoReranker:
    """Drop-in replacement for `FlagEmbedding.FlagAutoReranker`.

    Source: FlagEmbedding 1.4.2 `inference/auto_reranker.py` and `inference/reranker/model_mapping.py`;
    tests/parity/test_flag_auto.py.
    """

    def __init__(self) -> None:
        """Refuse to be made.

        Raises:
            OSError: always, as in FlagEmbedding.
        """
        raise OSError("FlagAutoReranker has no instances: call FlagAutoReranker.from_finetuned(model)")

    @classmethod
    def from_finetuned(
        cls,
        model_name_or_path: str,
        model_class: str | None = None,
        use_fp16: bool = False,
        trust_remote_code: bool | None = None,
        **kwargs: Any,
    ) -> FlagReranker:
        """Load a model with the class that its name, or `model_class`, stands for.

        Args:
            model_name_or_path: as `Reranker`'s model. Its last part is looked up, or, where that is a checkpoint of a
                training (`checkpoint-100`), the name of the directory that holds it.
            model_class: "encoder-only-base" for a model with a name of its own, or FlagEmbedding's member of that
                value; None to look the name up.
            use_fp16: as for `FlagReranker`.
            trust_remote_code: as for `FlagReranker`.
            kwargs: the other arguments of `FlagReranker`.

        Returns:
            A `FlagReranker`.

        Raises:
            InputError: no such name or class is known (a ValueError, as in FlagEmbedding).
            UnsupportedModelError: FlagEmbedding knows it, and its class does not run here.
            RerankError: as `Reranker`.
        """
        face = _named(model_name_or_path) if model_class is None else _of_class(model_class)
        if isinstance(face, str):
            raise UnsupportedModelError(
                f"{model_name_or_path} needs {face}, which does not run here: `mlx-rerank models` lists what does"
            )
        trusted = trust_remote_code is not None and require_boolean("trust_remote_code", trust_remote_code)
        return face(model_name_or_path, use_fp16=use_fp16, trust_remote_code=trusted, **kwargs)


def _named(path: str) -> Face:
    """Return the face of a model by its name.

    Raises:
        InputError: FlagEmbedding has no model of that name.
    """
    place = PurePath(path)
    name = place.parent.name if place.name.startswith("checkpoint-") else place.name
    if name not in _MODELS:
        raise InputError(
            f"model name {name!r} is not one of {', '.join(_MODELS)}: pass model_class='encoder-only-base' for any "
            "other cross-encoder of an encoder"
        )
    return _MODELS[name]


def _of_class(model_class: Any) -> Face:
    """Return the face that a string, or a member of FlagEmbedding's enumeration, stands for.

    Raises:
        InputError: there is none.
    """
    value = str(getattr(model_class, "value", model_class))
    if value not in _CLASSES:
        raise InputError(f"model_class {value!r} is not one of {', '.join(_CLASSES)}")
    return _CLASSES[value]
