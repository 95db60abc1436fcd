"""Settings that are saved beside a model: read, or refused; tests/parity shows that they are done as originals do."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkpoints import TINY, write_checkpoint

from mlx_rerank import CrossEncoder, FlagReranker, Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.errors import CheckpointError, InputError, UnsupportedModelError

TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
DENSE = {"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.base.modules.dense.Dense"}
OLD = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
OURS = {"model_type": "CrossEncoder"}
SAVED = {"config_sentence_transformers": OURS, "modules": [TRANSFORMER]}


@pytest.fixture
def changed(tiny: Path, tmp_path: Path):
    """Copy the tiny checkpoint, with more in its files, each named without ".json"."""

    def change(**files: Any) -> Path:
        directory = shutil.copytree(tiny, tmp_path / "copy")
        for name, value in files.items():
            path = directory / f"{name}.json"
            if isinstance(value, dict) and path.exists():
                value = json.loads(path.read_text()) | value
            path.write_text(json.dumps(value))
        return directory

    return change


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config": {"truncation_side": "middle"}}, "truncation_side 'middle': write 'right' or 'left'"),
        ({"tokenizer_config": {"truncation_side": 1}}, "truncation_side is 1"),
        ({"tokenizer_config": {"model_max_length": "64"}}, "model_max_length is '64'"),
        ({"tokenizer_config": {"model_max_length": True}}, "model_max_length is True"),
        ({"tokenizer_config": {"sep_token": "<pad>"}}, "sep_token '<pad>'; mlx-rerank runs these models with '</s>'"),
        ({"tokenizer_config": {"cls_token": {"content": "<x>"}}}, "cls_token '<x>'"),
        (
            {"tokenizer_config": {"tokenizer_class": "XLMRobertaTokenizerFast", "add_prefix_space": False}},
            "add_prefix_space False",
        ),
        ({"tokenizer_config": {"mask_token": "\ud800"}}, "tokenizer_config.json cannot be read as JSON: .* surrogates"),
        ({"tokenizer_config": {"extra_special_tokens": [5]}}, "the added token 5, where a text"),
        ({"tokenizer_config": {"added_tokens_decoder": {"x": {"content": "y"}}}}, "added_tokens_decoder"),
        (
            {"tokenizer_config": {"added_tokens_decoder": {str(i): f"<{i}>" for i in range(30)}}},
            "model's table has 120",
        ),
        ({"tokenizer": {"post_processor": None}, "tokenizer_config": {"padding_side": 1}}, "padding_side is 1"),
        ({"config_sentence_transformers": OURS, "modules": [TRANSFORMER, DENSE]}, "Dense' in '1_Dense'"),
        ({"config_sentence_transformers": OURS, "modules": [TRANSFORMER | {"path": "0_Transformer"}]}, "0_Transformer"),
        ({"config_sentence_transformers": OURS, "modules": [TRANSFORMER | {"type": "own.Module"}]}, "own.Module"),
        ({"config_sentence_transformers": OURS, "modules": {"0": 1}}, "does not hold a list"),
        (SAVED | {"sentence_bert_config": {"do_lower_case": True}}, "do_lower_case True"),
        (SAVED | {"sentence_bert_config": {"processing_kwargs": {"text": {"max_length": 9}}}}, "processing_kwargs"),
        (SAVED | {"sentence_bert_config": {"tokenizer_args": {"do_lower_case": True}}}, "tokenizer_args"),
        (SAVED | {"sentence_bert_config": {"max_seq_length": "9"}}, "max_seq_length is '9'"),
        ({"special_tokens_map": None}, "special_tokens_map.json holds a NoneType"),
        ({"modules": 0} | {"config_sentence_transformers": OURS}, "does not hold a list"),
        ({"added_tokens": {"<new>": "x"}}, "added_tokens_decoder"),
        ({"config_sentence_transformers": OURS | {"prompts": {"ask": 5}}}, "ask is 5, where str is expected"),
        ({"config_sentence_transformers": OURS | {"prompts": "ask"}}, "prompts is 'ask'"),
        ({"config": {"quantization_config": {"quant_method": "bitsandbytes"}}}, "quantization_config .*bitsandbytes"),
        ({"config": {"quantization": {"bits": 4, "group_size": 64}}}, "what other tools have packed"),
        ({"config": {"is_decoder": True}}, "is_decoder False; found True"),
        ({"config": {"position_embedding_type": "relative_key"}}, "relative_key"),
        ({"config": {"hidden_act": "gelu_new"}}, "gelu_new"),
        ({"config": {"num_labels": 3}}, "3 labels"),
    ],
)
def test_what_is_refused(changed, files: dict[str, Any], message: str) -> None:
    directory = changed(**files)
    for load in (Reranker, CrossEncoder, FlagReranker):
        with pytest.raises(CheckpointError, match=message):
            load(str(directory))


def test_special_tokens_without_a_tokenizer_config(changed, tmp_path: Path) -> None:
    wrong = {"special_tokens_map": {"sep_token": "<pad>"}}
    assert Reranker(changed(**wrong, tokenizer_config={"added_tokens_decoder": {}}))  # a newer file with all of them
    shutil.rmtree(tmp_path / "copy")
    directory = changed(**wrong)
    (directory / "tokenizer_config.json").unlink()
    with pytest.raises(UnsupportedModelError, match=r"sep_token '<pad>'; mlx-rerank runs these models with '</s>'"):
        Reranker(directory)


def test_a_template_that_is_not_the_familys(changed, tiny: Path) -> None:
    template = json.loads((tiny / "tokenizer.json").read_text())["post_processor"]
    template["pair"] = [piece for piece in template["pair"] if piece != {"SpecialToken": {"id": "</s>", "type_id": 0}}]
    directory = changed(tokenizer={"post_processor": template})
    with pytest.raises(UnsupportedModelError, match=r"joins the texts 'a' and 'b' to the ids \[.*\]; mlx-rerank runs"):
        Reranker(directory)


@pytest.mark.parametrize("modules", [[], [TRANSFORMER], [OLD], None])
def test_what_sentence_transformers_saves_loads(changed, modules: list | None) -> None:
    more = {"activation_fn": "torch.nn.modules.linear.Identity", "prompts": {}, "default_prompt_name": None}
    files = {"config_sentence_transformers": OURS | more, "sentence_bert_config": {"max_seq_length": 30}}
    directory = changed(**files, **({} if modules is None else {"modules": modules}))
    length = 30 if modules else 64  # without a list of modules, sentence-transformers reads none of their settings
    assert Reranker(directory).max_length == CrossEncoder(directory).max_length == length


@pytest.mark.parametrize("model_type", [None, "SentenceTransformer"])
def test_settings_of_another_use_of_the_model_are_left_alone(changed, model_type: str | None) -> None:
    directory = changed(
        config_sentence_transformers={"model_type": model_type, "prompts": {"ask": "what "}},
        modules=[TRANSFORMER, DENSE],
        sentence_bert_config={"max_seq_length": 30, "do_lower_case": True},
    )
    encoder = CrossEncoder(directory)
    assert (encoder.max_length, encoder.prompts) == (64, {})


def test_lengths(changed, tmp_path: Path) -> None:
    directory = changed(tokenizer_config={"model_max_length": 40})
    assert Reranker(directory).max_length == 40
    assert Reranker(directory, max_length=64).max_length == 64
    (directory / "tokenizer_config.json").write_text('{"model_max_length": 4}')
    with pytest.raises(InputError, match="max_length 4 leaves no room"):
        Reranker(directory)
    for text, length in (('{"max_len": 40}', 40), ('{"max_len": 40, "model_max_length": null}', 64)):
        (directory / "tokenizer_config.json").write_text(text)  # the older name, where the newer one is not there
        assert Reranker(directory).max_length == length
    longer = write_checkpoint(tmp_path / "longer", TINY | {"max_position_embeddings": 1026})
    (longer / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    assert Checkpoint.open(longer).settings.usual_length(1024) == 512
    assert CrossEncoder(longer).max_length == 1024


def test_what_a_reranker_does_otherwise_is_logged(changed, caplog: pytest.LogCaptureFixture) -> None:
    saved = OURS | {"prompts": {"ask": "what is ", "none": ""}, "default_prompt_name": "ask"}
    directory = changed(config_sentence_transformers=saved, tokenizer_config={"padding_side": "left"})
    with caplog.at_level(logging.WARNING, "mlx_rerank"):
        Reranker(directory)
    assert [record.message for record in caplog.records] == [
        "the checkpoint's default prompt 'ask' is put before queries by CrossEncoder alone: elsewhere, put 'what is ' "
        "before them yourself",
        "the checkpoint's padding_side 'left' has no effect: no score depends on padding here",
    ]
    caplog.clear()
    (directory / "config_sentence_transformers.json").write_text(json.dumps(saved | {"default_prompt_name": "none"}))
    (directory / "tokenizer_config.json").unlink()
    Reranker(directory)
    assert not caplog.records
