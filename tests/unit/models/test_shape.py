"""Reading config.json: what is required, and what is refused and how."""

import json
from pathlib import Path

import pytest
from checkpoints import TINY, shape_of

from mlx_rerank.checkpoints.config import read_config
from mlx_rerank.checkpoints.packing import Quantization, quantization_of
from mlx_rerank.errors import CheckpointError, UnsupportedModelError
from mlx_rerank.models.encoders.xlm_roberta import XLMRobertaShape

SHAPE_FIELDS = list(XLMRobertaShape.__dataclass_fields__)


def test_a_good_one() -> None:
    config = shape_of(TINY)
    assert config.hidden_size == 64
    assert config.max_length == 64  # 66 positions, of which two are never used


@pytest.mark.parametrize("field", SHAPE_FIELDS)
def test_a_missing_shape_field_is_named(field: str) -> None:
    with pytest.raises(CheckpointError, match=f"no '{field}'"):
        shape_of({key: value for key, value in TINY.items() if key != field})


@pytest.mark.parametrize("field", SHAPE_FIELDS)
@pytest.mark.parametrize("value", ["64", None, -1, True, [64], float("nan"), float("inf")])
def test_a_field_of_the_wrong_kind_is_named(field: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=f"{field} must be"):
        shape_of(TINY | {field: value})


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"model_type": "longformer", "architectures": ["LongformerForMaskedLM"]}, "model_type 'longformer'"),
        ({"architectures": ["XLMRobertaModel"]}, "an embedding model"),
        ({"architectures": ["XLMRobertaForMaskedLM"]}, "another head"),
        ({"id2label": {"0": "entailment", "1": "neutral", "2": "contradiction"}}, "3 labels.*contradiction"),
        ({"id2label": None}, "2 labels"),
        ({"hidden_act": "relu"}, "hidden_act 'gelu'; found 'relu'"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"type_vocab_size": 2}, "type_vocab_size 1; found 2"),
    ],
)
def test_other_models_are_refused_by_what_they_are(change: dict, found: str) -> None:
    with pytest.raises(UnsupportedModelError, match=found):
        shape_of(TINY | change)


def test_where_no_architecture_is_named_the_weights_tell() -> None:
    assert shape_of(TINY | {"architectures": None}) == shape_of(TINY)


def test_contradictions() -> None:
    with pytest.raises(CheckpointError, match="hidden_size 64 is not a multiple of num_attention_heads 5"):
        shape_of(TINY | {"num_attention_heads": 5})
    with pytest.raises(CheckpointError, match="leaves 4 tokens"):
        shape_of(TINY | {"max_position_embeddings": 6})
    with pytest.raises(CheckpointError, match="layer_norm_eps must be"):
        shape_of(TINY | {"layer_norm_eps": 0})
    with pytest.raises(CheckpointError, match=r"num_attention_heads must be .*int\) from 1 to 2147483647, found 0"):
        shape_of(TINY | {"num_attention_heads": 0})


def test_num_labels_will_do_for_id2label() -> None:
    config = {key: value for key, value in TINY.items() if key != "id2label"}
    assert shape_of(config | {"num_labels": 1}).vocab_size == 120


@pytest.mark.parametrize("content", [None, "", "{", "[1, 2]", "\xff"])
def test_files_that_are_no_config(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(tmp_path)


def test_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    assert read_config(tmp_path) == TINY


def test_quantization_of_one_layer() -> None:
    config = {"quantization": {"group_size": 64, "bits": 8, "mode": "affine", "a.b": {"group_size": 32, "bits": 4}}}
    assert quantization_of(config, "a.b") == Quantization(32, 4, "affine")
    assert quantization_of(config, "c") == Quantization(64, 8, "affine")
    with pytest.raises(CheckpointError, match="c is quantized, but"):
        quantization_of({}, "c")
