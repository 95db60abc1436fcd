"""GTE with a single-label classification head, such as gte-multilingual-reranker-base.

Follows transformers' GteForSequenceClassification, and the code that came with the models before, under model_type
"new" ("mGTE: Generalized Long-Context Text Representation and Reranking Models", Zhang et al. 2024): BERT's order of
layers with rotary positions, a gated feed-forward, and one row of token type embeddings. tests/families/test_gte.py.

Shape letters: B pairs, L tokens of the longest pair, D hidden size, F intermediate size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
from tokenizers import Tokenizer

from mlx_rerank.device import operations
from mlx_rerank.errors import CheckpointError, UnsupportedModelError
from mlx_rerank.models.cost import Cost
from mlx_rerank.models.encoders import post_norm
from mlx_rerank.models.family import Family, InTransformers, is_classifier, require_special_tokens, wanted
from mlx_rerank.models.known import KnownModel
from mlx_rerank.models.layers import LayerNorm, Linear, look_up
from mlx_rerank.models.mapping import SIGMOID
from mlx_rerank.models.rules import Rule, copied, linear, norm
from mlx_rerank.models.shape import Shape, read_shape
from mlx_rerank.pairs.frames import Frame

_TITLE, _EXAMPLE = "GTE", "Alibaba-NLP/gte-multilingual-reranker-base"
_WANTED = wanted(_TITLE, _EXAMPLE)
_SPECIAL_TOKENS = 4  # <s> query </s></s> document </s>
_TOKENS = "new.embeddings."
_KINDS = {"new": "New", "gte": "Gte"}  # how class names begin, by model_type
_OF_ROPE = ("rope_type", "type", "rope_theta", "factor")  # entries that are read; the models have no others


class Rope(NamedTuple):
    """Rotary positions: a token's angles are its place, divided by the factor, times powers of theta."""

    theta: float
    factor: float


@dataclass(frozen=True)
class GteShape(Shape):
    """The numbers of a GTE; theta and factor are those of `Rope`."""

    rope_theta: float
    rope_factor: float


class Embeddings(nn.Module):
    """Word embeddings plus the one row of token types, normalised; positions are in the attention."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.token_type_embeddings = nn.Embedding(1, shape.hidden_size)
        self.norm = LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)

    def __call__(
        self, input_ids: mx.array, segments: mx.array | None = None, words: mx.array | None = None
    ) -> mx.array:
        """Map int32 ids [B, L] to [B, L, D]; there are no segments."""
        kind = self.token_type_embeddings.weight
        if words is None:
            words = look_up(self.word_embeddings, input_ids, kind.dtype)
        return self.norm(words + kind)


class SelfAttention(post_norm.SelfAttention):
    """Multi-head attention with rotary positions."""

    def __init__(self, shape: GteShape) -> None:
        super().__init__(shape)
        self.rope = Rope(shape.rope_theta, shape.rope_factor)

    def placed(self, heads: mx.array) -> mx.array:
        """Turn queries or keys, [B, H, L, D/H], by the angles of their places."""
        return operations.rope(heads, self.rope.theta, scale=1 / self.rope.factor)


class Layer(nn.Module):
    """One encoder layer: attention and gated feed-forward, each added to its input and then normalised."""

    def __init__(self, shape: GteShape) -> None:
        super().__init__()
        D, F, eps = shape.hidden_size, shape.intermediate_size, shape.layer_norm_eps
        self.attention = SelfAttention(shape)
        self.attention_norm = LayerNorm(D, eps=eps)
        self.up_gate_proj = Linear(D, 2 * F, bias=False)
        self.down_proj = Linear(F, D)
        self.output_norm = LayerNorm(D, eps=eps)

    def __call__(self, x: mx.array, mask: mx.array | None, *, first_token_only: bool = False) -> mx.array:
        """Map [B, L, D] to [B, L, D], or to the first token's [B, 1, D]."""
        attended = self.attention(x, mask, first_token_only=first_token_only)
        x = self.attention_norm((x[:, :1] if first_token_only else x) + attended)
        up, gate = mx.split(self.up_gate_proj(x), 2, axis=-1)
        return self.output_norm(x + self.down_proj(operations.gelu(gate) * up))


class Gte(post_norm.Encoder):
    """The whole model: token ids in, one logit per pair out."""

    def __init__(self, shape: GteShape) -> None:
        super().__init__(shape, Embeddings(shape))
        self.layers = [Layer(shape) for _ in range(shape.num_hidden_layers)]


def _accepts(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is of a GTE; refuse all but a single-label sequence classifier of this form."""
    expected = {
        "hidden_act": "gelu",
        "position_embedding_type": "rope",
        "layer_norm_type": "layer_norm",
        "type_vocab_size": 1,
        "pack_qkv": True,
        "logn_attention_scale": False,
        "is_decoder": False,
    }
    if not any(is_classifier(config, _WANTED, kind, stem, expected) for kind, stem in _KINDS.items()):
        return False
    rope = _saved_rope(config)
    kind = _rope_type(rope)
    more = {key: value for key, value in rope.items() if key not in _OF_ROPE and value is not None}
    if kind not in ("default", "linear", "ntk") or more:
        raise UnsupportedModelError(
            f"{_WANTED} with rotary positions of type 'default', 'linear' or 'ntk', and a factor; found {rope!r:.200}"
        )
    return True


def _saved_rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config.json says of rotary positions, in either of the ways that transformers reads."""
    saved = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(saved, Mapping):
        raise CheckpointError(f"config.json describes rotary positions by {saved!r:.80}, not by an object")
    return {"rope_theta": config.get("rope_theta"), **saved}


def _rope_type(rope: Mapping[str, Any]) -> Any:
    """Return the type of rotary positions under its newer name or its older."""
    return rope.get("rope_type", rope.get("type", "default"))


def _rope(config: Mapping[str, Any], head_size: int) -> Rope:
    """Return theta and factor of a config.json's rotary positions.

    Type "ntk" stretches wave lengths twice: theta is multiplied with its factor, and places are divided by that factor
    to the power of 2 / head size. Then the longest wave is longer by factor, and the shortest by little.

    Raises:
        CheckpointError: a number is missing, or is none.

    Source: NTKScalingRotaryEmbedding of the models' own code; tests/families/test_gte.py.
    """
    saved = _saved_rope(config)
    kind, theta = _rope_type(saved), _number(saved, "rope_theta")
    factor = 1.0 if kind == "default" else _number(saved, "factor")
    return Rope(theta * factor, factor ** (2 / head_size)) if kind == "ntk" else Rope(theta, factor)


def _number(rope: Mapping[str, Any], name: str) -> float:
    """Return a number that is said of rotary positions."""
    value = rope.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 1e9:
        raise CheckpointError(
            f"config.json: {name} of rotary positions must be a number from 1 to 1e9, found {value!r:.40}"
        )
    return float(value)


def _shape(config: Mapping[str, Any]) -> GteShape:
    """Read the numbers of a config.json.

    Raises:
        CheckpointError: one is missing, or contradicts another.
    """
    unknown = {"rope_theta": 1.0, "rope_factor": 1.0}  # until the size of a head is known
    size = read_shape(GteShape, {**config, **unknown}, _SPECIAL_TOKENS)
    head_size = size.hidden_size // size.num_attention_heads
    if head_size % 2 or config.get("head_dim") not in (None, head_size):
        raise CheckpointError(
            f"config.json has heads of size {config.get('head_dim') or head_size}; rotary positions need an even size, "
            f"and these models have hidden_size {size.hidden_size} / num_attention_heads {size.num_attention_heads}"
        )
    rope = _rope(config, head_size)
    known = {"rope_theta": rope.theta, "rope_factor": rope.factor}
    return read_shape(GteShape, {**config, **known}, _SPECIAL_TOKENS)


def _frame(tokenizer: Tokenizer, shape: GteShape) -> Frame:
    """Return what surrounds two texts: ``<s> query </s></s> document </s>``; ``<unk>`` hides words."""
    require_special_tokens(tokenizer, {"<pad>": shape.pad_token_id})
    start, end, unknown = (tokenizer.token_to_id(token) for token in ("<s>", "</s>", "<unk>"))
    if start is None or end is None:
        raise CheckpointError(f"tokenizer.json has <s> at {start} and </s> at {end}: a GTE needs both")
    pad = shape.pad_token_id
    return Frame((start,), (end, end), (end,), pad, pad if unknown is None else unknown)


def _renamed(name: str) -> str:
    """Return a tensor's name as the models' own code saves it: transformers saves another prefix, or none."""
    if name.startswith(("new.", "classifier.", "lm_head.")):
        return name
    return "new." + name.removeprefix("gte.")


def _table(shape: GteShape) -> list[Rule]:
    """Return the rules of all parameters; rows of up_gate_proj are those of up, then those of the gate."""
    D, F = shape.hidden_size, shape.intermediate_size
    rules = [
        copied(f"{post_norm.WORDS}.weight", _TOKENS + "word_embeddings.weight", (shape.vocab_size, D)),
        copied("embeddings.token_type_embeddings.weight", _TOKENS + "token_type_embeddings.weight", (1, D)),
        *norm("embeddings.norm", _TOKENS + "LayerNorm", D),
    ]
    for n in range(shape.num_hidden_layers):
        own, theirs = f"layers.{n}", f"new.encoder.layer.{n}"
        rules += linear(f"{own}.attention.qkv_proj", [f"{theirs}.attention.qkv_proj"], 3 * D, D)
        rules += linear(f"{own}.attention.out_proj", [f"{theirs}.attention.o_proj"], D, D)
        rules += norm(f"{own}.attention_norm", f"{theirs}.attn_ln", D)
        rules += linear(f"{own}.up_gate_proj", [f"{theirs}.mlp.up_gate_proj"], 2 * F, D, bias=False)
        rules += linear(f"{own}.down_proj", [f"{theirs}.mlp.down_proj"], D, F)
        rules += norm(f"{own}.output_norm", f"{theirs}.mlp_ln", D)
    head = [*linear("head.dense", ["new.pooler.dense"], D, D), *linear("head.out_proj", ["classifier"], 1, D)]
    return rules + head


def _packable(shape: Shape) -> list[dict[str, int]]:
    """Return, for each layer, the matrices that may be packed, by path, with the width of their rows."""
    D, F = shape.hidden_size, shape.intermediate_size
    matrices = {"attention.qkv_proj": D, "attention.out_proj": D, "up_gate_proj": D, "down_proj": F}
    return [{f"layers.{n}.{name}": width for name, width in matrices.items()} for n in range(shape.num_hidden_layers)]


def _for_transformers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json with its rotary positions as transformers has them: it knows no type "ntk"."""
    rope = _rope(config, config["hidden_size"] // config["num_attention_heads"])
    return {
        **config,
        "rope_parameters": {"rope_type": "linear", "rope_theta": rope.theta, "factor": rope.factor},
        "rope_scaling": None,
        "model_type": "gte",
    }


FAMILY = Family(
    name="gte",
    title=_TITLE,
    example=_EXAMPLE,
    accepts=_accepts,
    shape=_shape,
    table=_table,
    renamed=_renamed,
    ignored=("lm_head.",),  # the head of pretraining
    frame=_frame,
    build=Gte,
    score_rule="the first token",
    mapping=SIGMOID,
    words=post_norm.WORDS,
    packable=_packable,
    cost=partial(Cost, gated=True),
    in_transformers=InTransformers(
        model="GteForSequenceClassification",
        config="GteConfig",
        tokenizer="XLMRobertaTokenizer",
        special_tokens={
            "bos_token": "<s>",
            "cls_token": "<s>",
            "eos_token": "</s>",
            "sep_token": "</s>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
        },
        hidden_states=post_norm.hidden_states,
        translated=_for_transformers,
    ),
    known=(KnownModel(_EXAMPLE, parameters=306, languages="many", licence="Apache-2.0", longest_pair=8192),),
)
