"""The numbers of a ModernBERT, and which of its relatives are not run; modernbert.py has the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_rerank.errors import CheckpointError, UnsupportedModelError
from mlx_rerank.models.family import is_classifier, require_values, wanted
from mlx_rerank.models.shape import Shape, read_shape

TITLE, EXAMPLE = "ModernBERT", "Alibaba-NLP/gte-reranker-modernbert-base"
_WANTED = wanted(TITLE, EXAMPLE)
_SPECIAL_TOKENS = 3  # [CLS] query [SEP] document [SEP]
_FULL, _SLIDING = "full_attention", "sliding_attention"
_POOLINGS = ("cls", "mean")
_EXPECTED = {
    "hidden_activation": "gelu",
    "classifier_activation": "gelu",
    **dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias", "classifier_bias", "sparse_prediction"), False),
    "rope_scaling": None,
}


@dataclass(frozen=True)
class ModernBertShape(Shape):
    """The numbers of a ModernBERT.

    Args:
        local_attention: tokens of a window; half of them on either side of a token, which is not counted.
        global_rope_theta: base of the wave lengths in layers that see all tokens.
        local_rope_theta: the same in layers that see a window.
        sliding: of each layer, whether it sees a window.
        mean: whether the head reads the mean of all tokens, else the first token.
    """

    local_attention: int
    global_rope_theta: float
    local_rope_theta: float
    sliding: tuple[bool, ...]
    mean: bool

    @property
    def reach(self) -> int:
        """Places that a window reaches to either side of a token."""
        return self.local_attention // 2


def accepts(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is of a ModernBERT; refuse all but a single-label sequence classifier."""
    if not is_classifier(config, _WANTED, "modernbert", "ModernBert", _EXPECTED):
        return False
    pooling = config.get("classifier_pooling", "cls")
    if pooling not in _POOLINGS:
        raise UnsupportedModelError(f"{_WANTED} with classifier_pooling 'cls' or 'mean'; found {pooling!r}")
    require_run(config, _WANTED)
    return True


def require_run(config: Mapping[str, Any], wanted: str) -> None:
    """Refuse a ModernBERT whose layers compute otherwise than here.

    Args:
        config: of a checkpoint.
        wanted: the beginning of the message.

    Raises:
        UnsupportedModelError: it is one.
    """
    require_values(config, wanted, _EXPECTED)
    for kind, rope in _rope_parameters(config).items():
        if kind not in (_FULL, _SLIDING) or not isinstance(rope, dict | None):
            raise UnsupportedModelError(f"{wanted} with rope_parameters of {_FULL} and {_SLIDING}; found {kind!r}")
        for key, value in (rope or {}).items():
            if key != "rope_theta" and (key, value) != ("rope_type", "default"):
                raise UnsupportedModelError(f"{wanted} with rope_type 'default' alone; found {key} {value!r}")


def _rope_parameters(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of rotary positions by kind of layer; none where they are in older keys."""
    found = config.get("rope_parameters") or {}
    if not isinstance(found, dict):
        raise CheckpointError(f"config.json has rope_parameters {found!r:.80}, where an object is expected")
    return found


def read(config: Mapping[str, Any]) -> ModernBertShape:
    """Read the numbers of a config.json, of transformers 5 or older."""
    values = dict(config)
    if "norm_eps" in config:
        values["layer_norm_eps"] = config["norm_eps"]
    for kind, older in ((_FULL, "global_rope_theta"), (_SLIDING, "local_rope_theta")):
        rope = _rope_parameters(config).get(kind) or {}
        if "rope_theta" in rope:
            values[older] = rope["rope_theta"]
    sliding, mean = _sliding(config), config.get("classifier_pooling") == "mean"
    shape = read_shape(ModernBertShape, values, _SPECIAL_TOKENS, sliding=sliding, mean=mean)
    size = shape.hidden_size // shape.num_attention_heads
    if size % 2 or config.get("head_dim") not in (None, size):
        raise CheckpointError(
            f"hidden_size {shape.hidden_size} and num_attention_heads {shape.num_attention_heads} make heads of "
            f"{size}, head_dim is {config.get('head_dim')}: they must be even and agree"
        )
    return shape


def _sliding(config: Mapping[str, Any]) -> tuple[bool, ...]:
    """Return of each layer whether it sees a window.

    Raises:
        CheckpointError: config.json does not say so, or says it of another number of layers.
    """
    layers, kinds = config.get("num_hidden_layers"), config.get("layer_types")
    if kinds is None:
        every = config.get("global_attn_every_n_layers")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1 or not isinstance(layers, int):
            raise CheckpointError(
                f"config.json has no layer_types, and global_attn_every_n_layers {every!r}: one of them must say which "
                "layers see all tokens"
            )
        # A shape with too many layers is refused by `read_shape`; until then nothing long is made.
        return tuple(number % every != 0 for number in range(min(layers, 1001)))
    if not isinstance(kinds, list) or len(kinds) != layers or not {*map(str, kinds)} <= {_FULL, _SLIDING}:
        raise CheckpointError(
            f"config.json has layer_types {kinds!r:.80}: it must have {_FULL!r} or {_SLIDING!r} for each of {layers} "
            "layers"
        )
    return tuple(kind == _SLIDING for kind in kinds)
