"""Every setting that is saved beside a model: none is read without effect, and no file of them is forgotten."""

import json
import shutil
from dataclasses import fields
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mlx_rerank import CrossEncoder, Reranker
from mlx_rerank.checkpoints.files import SETTINGS
from mlx_rerank.checkpoints.settings import Settings
from mlx_rerank.errors import RerankError

PAIRS = [("panda", "the bear"), ("what is panda", "a bear " * 40), ("panda", "what <mask>"), ("the", "")]
MODULE = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
CROSS = {"model_type": "CrossEncoder"}
HONOURED: dict[str, dict[str, Any]] = {  # by field of Settings, or by file
    "activation": {"config_sentence_transformers": CROSS | {"activation_fn": "torch.nn.modules.linear.Identity"}},
    "prompts": {"config_sentence_transformers": CROSS | {"prompts": {"ask": "what is "}, "default_prompt_name": "ask"}},
    "max_length": {"tokenizer_config": {"model_max_length": 20}},
    "truncation_side": {"tokenizer_config": {"truncation_side": "left"}},
    "special_tokens_map.json": {"special_tokens_map": {"additional_special_tokens": ["bear"]}},
    "added_tokens.json": {"added_tokens": {"bear": 100}},
    "tokenizer_config.json": {"tokenizer_config": {"extra_special_tokens": ["bear"]}},
    "sentence_bert_config.json": {
        "config_sentence_transformers": CROSS,
        "modules": [MODULE],
        "sentence_bert_config": {"max_seq_length": 20},
    },
}
REFUSED: dict[str, dict[str, Any]] = {
    "default_prompt_name": {"config_sentence_transformers": CROSS | {"default_prompt_name": "ask"}},
    "modules.json": {"config_sentence_transformers": CROSS, "modules": [MODULE, MODULE]},
    "config_sentence_transformers.json": {"config_sentence_transformers": CROSS | {"prompts": 1}},
}
TOLD: dict[str, tuple[dict[str, Any], str]] = {
    "float32_modules": (
        {"config_sentence_transformers": CROSS | {"keep_in_fp32_modules": ["0.model.classifier"]}},
        "0.model.classifier compute in float16",
    ),
    "padding_side": ({"tokenizer_config": {"padding_side": "left"}}, "padding_side 'left' has no effect"),
    "other_tokenizer": (
        {"tokenizer_config": {"tokenizer_class": "T5TokenizerFast"}},
        "tokenizer_class 'T5TokenizerFast' has no effect",
    ),
}


def saved(tiny: Path, tmp_path: Path, files: dict[str, Any], numbers: Any = count()) -> Path:  # noqa: B008
    """Copy the tiny checkpoint, with more in its files, each named without ".json"."""
    directory = shutil.copytree(tiny, tmp_path / f"copy{next(numbers)}")
    for name, value in files.items():
        path = directory / f"{name}.json"
        if isinstance(value, dict) and path.exists():
            value = json.loads(path.read_text()) | value
        path.write_text(json.dumps(value))
    return directory


def test_no_setting_is_forgotten() -> None:
    assert {*HONOURED, *REFUSED, *TOLD} == {field.name for field in fields(Settings)} | set(SETTINGS)


@pytest.mark.parametrize("name", HONOURED)
def test_what_is_honoured(tiny: Path, tmp_path: Path, name: str) -> None:
    found = CrossEncoder(saved(tiny, tmp_path, HONOURED[name])).predict(PAIRS)
    assert abs(found - CrossEncoder(tiny).predict(PAIRS)).max() > 1e-3
    if name not in ("activation", "prompts"):  # which are CrossEncoder's alone
        found = Reranker(saved(tiny, tmp_path, HONOURED[name])).score(PAIRS)
        assert abs(found - Reranker(tiny).score(PAIRS)).max() > 1e-3


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tiny: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(RerankError):
        CrossEncoder(saved(tiny, tmp_path, REFUSED[name]))


@pytest.mark.parametrize("name", TOLD)
def test_what_is_told(
    tiny: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    files, words = TOLD[name]
    CrossEncoder(saved(tiny, tmp_path, files), model_kwargs={"dtype": "float16"})
    assert words in " ".join([caplog.text, *(str(each.message) for each in recwarn)])
