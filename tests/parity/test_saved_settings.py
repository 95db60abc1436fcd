"""Settings that a checkpoint saved, against what sentence-transformers and FlagEmbedding make of them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bounds
import numpy as np
import pytest
from families import test_bert as bert
from families.checks import seeded, write
from FlagEmbedding import FlagReranker as OriginalFlagReranker
from sentence_transformers import CrossEncoder as Original
from tokenizers import Tokenizer

from mlx_rerank import CrossEncoder, FlagReranker, Reranker
from mlx_rerank.errors import CheckpointError
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.proof.reference import ReferenceReranker

PAIRS = [
    ("what is panda", "the bear"),
    ("panda " * 40, "the bear is a panda " * 20),
    ("what is the panda bear", "a bear, the panda; " * 30),
    ("what is it, the first and the last " * 9, "the bear"),
    ("[QRY] <s> panda [MASK] [NEW]", "The BEAR </s> é, [SEP] [QRY]"),
]
Make = Callable[..., Path]
XLM, BERT = "tiny", "tiny_bert"


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with a [QRY] in its vocabulary that its tokenizer takes for no special token, and rows to spare."""
    tokenizer = bert.wordpiece()
    text = tokenizer.to_str().replace('".":', f'"[QRY]":{tokenizer.get_vocab_size()},".":', 1)
    config, directory = bert.TestBert.config, tmp_path_factory.mktemp("settings") / "bert"
    return write(directory, config, seeded(bert.FAMILY, config), Tokenizer.from_str(text))


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where checkpoints are kept whose files get more names: that changes a file, for another process too."""
    return tmp_path_factory.mktemp("apart")


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path, apart: Path) -> Make:
    """Copy a checkpoint, with more in its files, each named without ".json"."""

    def copy(name: str, **changes: dict[str, Any] | list) -> Path:
        if not (apart / name).exists():
            shutil.copytree(request.getfixturevalue(name), apart / name)
        directory = shutil.copytree(apart / name, tmp_path / "copy", copy_function=os.link)
        for file, change in changes.items():
            path = directory / f"{file}.json"
            if isinstance(change, dict) and path.exists():
                change = json.loads(path.read_text()) | change
            path.unlink(missing_ok=True)
            path.write_text(json.dumps(change))
        return directory

    return copy


def original_ids(original: Original) -> list[list[int]]:
    """Return what sentence-transformers gives its model."""
    features = original.preprocess([list(pair) for pair in PAIRS])
    return [
        ids[real].tolist() for ids, real in zip(features["input_ids"], features["attention_mask"].bool(), strict=True)
    ]


IDENTITY = "torch.nn.modules.linear.Identity"
OWN = {"tokenizer_class": "BertTokenizer"}
OLDEST = {"sbert_ce_default_activation_function": IDENTITY}
QRY = {"content": "[QRY]", "lstrip": True, "normalized": True, "rstrip": True, "single_word": False}
TRUNCATION = {"direction": "Left", "max_length": 9, "strategy": "OnlyFirst", "stride": 2}
OF_SENTENCE_TRANSFORMERS = {
    "modules": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    ],
    "config_sentence_transformers": {"model_type": "CrossEncoder"},
}
TASK = {
    "transformer_task": "sequence-classification",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "scores",
}


@pytest.mark.parametrize(
    ("checkpoint", "changes"),
    [
        (XLM, {"tokenizer_config": {"truncation_side": "left"}}),
        (XLM, {"tokenizer_config": {"truncation_side": "left", "model_max_length": 24}}),
        (XLM, {"tokenizer": {"truncation": TRUNCATION}}),
        (XLM, {"tokenizer": {"truncation": TRUNCATION}, "tokenizer_config": {"truncation_side": "right"}}),
        (BERT, {"tokenizer_config": {"split_special_tokens": True}}),
        (XLM, OF_SENTENCE_TRANSFORMERS | {"sentence_bert_config": TASK | {"max_seq_length": 20}}),
        (BERT, {"tokenizer_config": {"truncation_side": "left", "model_max_length": 24}}),
        (BERT, {"tokenizer_config": {"tokenizer_class": "BertTokenizer", "do_lower_case": False}}),
        (BERT, {"tokenizer_config": {"tokenizer_class": "BertTokenizerFast", "strip_accents": False}}),
        (BERT, {"tokenizer_config": {"tokenizer_class": "BertTokenizer", "additional_special_tokens": ["[QRY]"]}}),
        (BERT, {"tokenizer_config": {"added_tokens_decoder": {"70": {"content": "[NEW]", "special": True}}}}),
        (BERT, {"special_tokens_map": {"additional_special_tokens": ["[QRY]"]}}),
        (BERT, {"special_tokens_map": {"mask_token": QRY}}),
        (BERT, {"special_tokens_map": {"unk_token": "[QRY]"}, "tokenizer_config": {"pad_token": "[PAD]"}}),
        (
            BERT,
            {"special_tokens_map": {"unk_token": "[QRY]"}, "tokenizer_config": OWN},
        ),
        (BERT, {"tokenizer_config": {"query_token": "[QRY]", "add_bos_token": True}}),
        (BERT, {"tokenizer_config": {"additional_special_tokens": [QRY | {"__type": "AddedToken"}]}}),
        (BERT, {"added_tokens": {"[NEW]": 70}}),
        (BERT, {"added_tokens": {"[NEW]": 70}, "special_tokens_map": {"additional_special_tokens": ["[NEW]"]}}),
        (BERT, {"tokenizer_config": {"max_len": 24}}),
        (XLM, {"config": {"num_labels": 1, "id2label": None}, "tokenizer_config": {"truncation_side": "left"}}),
        (XLM, {"config": {"sbert_ce_default_activation_function": IDENTITY}}),
        (XLM, {"config": {"sentence_transformers": {"activation_fn": IDENTITY, "version": "4.1.0"}}}),
        (XLM, {"config": {"sentence_transformers": {"version": "4.1.0"}, **OLDEST}}),
    ],
)
def test_settings_are_honoured_as_the_original_honours_them(
    make: Make, checkpoint: str, changes: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    directory = make(checkpoint, **changes)
    original, ours = Original(str(directory), device="cpu"), CrossEncoder(directory, device="cpu")
    limit = ours.reranker.config.max_length  # which the original's may exceed
    original.max_seq_length = min(original.max_seq_length or limit, limit)
    assert ours.max_length == original.max_seq_length
    encoded = ours.reranker.encoder.encode(PAIRS, Limits(ours.max_length, longest_first=True))
    assert [encoded.sequences[place].ids.tolist() for place in encoded.inverse] == original_ids(original)
    expected = original.predict([list(pair) for pair in PAIRS], batch_size=1)
    bound = bounds.SCORE if expected.max() <= 1 and expected.min() >= 0 else bounds.TINY  # of logits
    np.testing.assert_allclose(ours.predict(PAIRS), expected, rtol=0, atol=bound)
    plain = CrossEncoder(request.getfixturevalue(checkpoint), device="cpu").predict(PAIRS)
    changed = not np.allclose(plain, expected, rtol=0, atol=1e-3)
    assert changed == (changes.get("tokenizer_config", {}).get("truncation_side") != "right")


@pytest.mark.parametrize(
    ("checkpoint", "changes"),
    [
        (XLM, {"config": {"sentence_transformers": {"activation_fn": None}, **OLDEST}}),
        (XLM, {"config": {"sentence_transformers": {"activation_fn": "torch.nn.Sigmoid"}, **OLDEST}}),
        (BERT, {"special_tokens_map": {"mask_token": "[QRY]"}, "tokenizer_config": {"added_tokens_decoder": {}}}),
        (BERT, {"added_tokens": {"[QRY]": 60}, "tokenizer_config": {"added_tokens_decoder": {}}}),
        (BERT, {"tokenizer": {"added_tokens": []}, "tokenizer_config": OWN}),
        (BERT, {"tokenizer_config": {"do_basic_tokenize": False, "never_split": ["panda"], "init_inputs": []}}),
    ],
)
def test_what_a_newer_setting_replaces(
    make: Make, checkpoint: str, changes: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    directory = make(checkpoint, **changes)
    original = Original(str(directory), device="cpu", max_length=64)
    expected = original.predict([list(pair) for pair in PAIRS], batch_size=1)
    for same in (directory, request.getfixturevalue(checkpoint)):
        found = CrossEncoder(same, device="cpu", max_length=64).predict(PAIRS)
        np.testing.assert_allclose(found, expected, rtol=0, atol=bounds.SCORE)


def test_an_unknown_token_that_is_none(make: Make) -> None:
    with pytest.raises(CheckpointError, match=r"unk_token '\[NONE\]' is not in its vocabulary"):
        CrossEncoder(make(BERT, tokenizer_config=OWN | {"unk_token": "[NONE]"}))


def test_the_side_that_is_asked_for(tiny: Path) -> None:
    options = {"truncation_side": "left"}
    original = Original(str(tiny), device="cpu", processor_kwargs=dict(options), max_length=64)
    ours = CrossEncoder(tiny, device="cpu", processor_kwargs=options, max_length=64)
    expected = original.predict([list(pair) for pair in PAIRS], batch_size=1)
    np.testing.assert_allclose(ours.predict(PAIRS), expected, rtol=0, atol=bounds.SCORE)


@pytest.mark.parametrize("query_max_length", [None, 8])  # between words: it makes texts of what is left
def test_flag_embedding_cuts_on_that_side_too(make: Make, query_max_length: int | None) -> None:
    directory = make("mini_directory", tokenizer_config={"truncation_side": "left"})
    arguments: dict[str, Any] = {"max_length": 64, "query_max_length": query_max_length, "devices": "cpu"}
    pairs = PAIRS[:4]  # the last one has special tokens, which it reads twice
    original = OriginalFlagReranker(str(directory), **arguments)
    original.model.float()
    expected = original.compute_score(pairs, batch_size=1)
    found = FlagReranker(str(directory), **arguments).compute_score(pairs)
    np.testing.assert_allclose(found, np.array(expected), rtol=0, atol=bounds.COMPANY)


def test_the_reference_cuts_on_that_side_too(make: Make) -> None:
    directory = make(XLM, tokenizer_config={"truncation_side": "left", "model_max_length": 40})
    found, expected = Reranker(directory).logits(PAIRS), ReferenceReranker(directory).logits(PAIRS)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=bounds.COMPANY)
    np.testing.assert_array_equal(found.spans, expected.spans)
    np.testing.assert_array_equal(found.truncated_tokens, expected.truncated_tokens)
