"""The tokenizer of a checkpoint: what its own file says, what is set beside it, and vocabularies without one."""

import json
import shutil
from pathlib import Path

import pytest
from checkpoints import TINY
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.tokenizer import read_tokenizer
from mlx_rerank.checkpoints.tokenizer_settings import apply_settings
from mlx_rerank.errors import CheckpointError
from mlx_rerank.models.encoders.bert import FAMILY as BERT
from mlx_rerank.pairs.limits import Limits


@pytest.mark.parametrize(
    ("own", "beside", "kept"),
    [("Left", None, 3), ("Right", None, 0), ("Left", "right", 0), ("Right", "left", 3), (None, "left", 3)],
)
def test_the_side_that_is_cut(tiny: Path, tmp_path: Path, own: str | None, beside: str | None, kept: int) -> None:
    directory = shutil.copytree(tiny, tmp_path / "copy")
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    truncation = {"direction": own, "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer | {"truncation": truncation if own else None}))
    settings = json.loads((directory / "tokenizer_config.json").read_text()) | {"truncation_side": beside}
    (directory / "tokenizer_config.json").write_text(
        json.dumps({name: value for name, value in settings.items() if value is not None})
    )
    encoder = Checkpoint.open(directory).encoder()
    whole = encoder.tokens("panda bear eats tea")[0]
    row = encoder.encode([("", "panda bear eats tea")], Limits(max_length=5)).sequences[0].ids.tolist()
    assert row[3:-1] == ([whole[-1]] if kept else [whole[0]])


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, " 熊 猫 a"),
        ({"tokenize_chinese_chars": True}, " 熊 猫 a"),
        ({"tokenize_chinese_chars": False}, "熊猫a"),
        ({"do_lower_case": False, "tokenize_chinese_chars": False}, "熊猫A"),
    ],
)
def test_how_berts_texts_are_normalized(tmp_path: Path, config: dict, text: str) -> None:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(handle_chinese_chars=False, lowercase=False)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    apply_settings(tokenizer, tmp_path, BERT.in_transformers)
    normalizer = tokenizer.normalizer
    assert normalizer is not None
    assert normalizer.normalize_str("熊猫A").replace("  ", " ").rstrip() == text


def test_a_vocabulary_that_no_tokenizer_can_be_made_from(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"no vocabulary")
    with pytest.raises(CheckpointError, match=r"none can be made from its vocabulary \(.*\): copy that of"):
        read_tokenizer(tmp_path)
