"""Every argument of FlagReranker and CrossEncoder, and of their methods."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from asking import Asked, parameters
from checkpoints import TINY, random_tensors, write_checkpoint
from fake_hub import FakeHub

from mlx_rerank import CrossEncoder, FlagReranker

pytestmark = pytest.mark.filterwarnings("ignore:mlx-rerank. max_length 512 exceeds")
PAIRS = [["panda", "the bear"], ["what is panda", "a bear " * 40], ["panda", "what"], ["the", ""]]
DOCUMENTS = [document for _, document in PAIRS]
BATCH = Asked({"batch_size": 0}, refused="batch_size must be a whole number of at least 1, not 0")
ANY = Asked({"unknown": 1}, warned="does not use unknown")
FLAG = {
    "model_name_or_path": Asked({"model_name_or_path": "other"}),
    "use_fp16": Asked({"use_fp16": True}),
    "query_instruction_for_rerank": Asked({"query_instruction_for_rerank": "what is"}),
    "query_instruction_format": Asked(
        {"query_instruction_format": "{} the {}"}, beside={"query_instruction_for_rerank": "what"}
    ),
    "passage_instruction_for_rerank": Asked({"passage_instruction_for_rerank": "what is"}),
    "passage_instruction_format": Asked(
        {"passage_instruction_format": "{} the {}"}, beside={"passage_instruction_for_rerank": "what"}
    ),
    "trust_remote_code": Asked({"trust_remote_code": True}, warned="FlagReranker does not use trust_remote_code"),
    "cache_dir": Asked({"cache_dir": "elsewhere"}, beside={"model_name_or_path": "test/tiny"}),
    "devices": Asked({"devices": ["cpu", "cuda:1"]}, warned="only one is used"),
    "batch_size": BATCH,
    "query_max_length": Asked({"query_max_length": 1}),
    "max_length": Asked({"max_length": 20}),
    "normalize": Asked({"normalize": True}),
    "cpu_threads": Asked({"cpu_threads": 0}, refused="cpu_threads must be a whole number of at least 1, not 0"),
    "kwargs": Asked({"use_bf16": True}, warned="FlagReranker does not use use_bf16"),
}
COMPUTING = {"sentence_pairs": Asked({"sentence_pairs": PAIRS[1:]}), "batch_size": BATCH, "kwargs": ANY} | {
    name: FLAG[name] for name in ("query_max_length", "max_length", "normalize")
}
CROSS = {
    "model_name_or_path": Asked({"model_name_or_path": "other"}),
    "num_labels": Asked({"num_labels": 2}, refused="num_labels must be 1, not 2"),
    "max_length": Asked({"max_length": 20}),
    "activation_fn": Asked({"activation_fn": np.tanh}),
    "device": Asked({"device": "tpu"}, refused="device 'tpu' is not 'cpu', a number, or one of"),
    "modules": Asked({"modules": []}, warned="does not use modules"),
    "prompts": Asked({"prompts": {"ask": "what is "}, "default_prompt_name": "ask"}),
    "default_prompt_name": Asked({"default_prompt_name": ""}, refused="there is no prompt named ''"),
    "cache_folder": Asked({"cache_folder": "elsewhere"}, beside={"model_name_or_path": "test/tiny"}),
    "trust_remote_code": Asked({"trust_remote_code": True}, warned="does not use trust_remote_code"),
    "revision": Asked({"revision": "v1"}, refused="revision 'v1' is for models of the hub"),
    "local_files_only": Asked(
        {"local_files_only": True}, refused="could not be fetched", beside={"model_name_or_path": "test/tiny"}
    ),
    "token": Asked({"token": "hf_given"}, beside={"model_name_or_path": "test/tiny"}),
    "model_kwargs": Asked({"model_kwargs": {"dtype": "bfloat16"}}),
    "processor_kwargs": Asked({"processor_kwargs": {"truncation_side": "left"}}),
    "config_kwargs": Asked({"config_kwargs": {"num_labels": 2}}, refused="num_labels must be 1, not 2"),
    "model_card_data": Asked({"model_card_data": SimpleNamespace(name="own")}),
    "backend": Asked({"backend": "onnx"}, warned="does not use backend"),
    "keep_in_fp32_modules": Asked({"keep_in_fp32_modules": ["0.model"]}, warned="does not use keep_in_fp32_modules"),
    "cpu_threads": FLAG["cpu_threads"],
}
OLD = {
    "model_name": Asked({"model_name": "other"}),
    "automodel_args": Asked({"automodel_args": {"dtype": "bfloat16"}}),
    "tokenizer_args": Asked({"tokenizer_args": {"model_max_length": 20}}),
    "tokenizer_kwargs": Asked({"tokenizer_kwargs": {"padding_side": "left"}}, warned=r"processor_kwargs\['padding_s"),
    "config_args": Asked({"config_args": {"hidden_act": "relu"}}, warned=r"config_kwargs\['hidden_act'\]"),
    "cache_dir": Asked({"cache_dir": ""}, refused="cache_dir '' is empty"),
    "default_activation_function": Asked({"default_activation_function": np.tanh}),
    "classifier_dropout": Asked({"classifier_dropout": 0.0}, warned="does not use classifier_dropout"),
}
PREDICTING = {
    "prompt_name": Asked({"prompt_name": "ask"}),
    "prompt": Asked({"prompt": "what is "}),
    "batch_size": BATCH,
    "show_progress_bar": Asked({"show_progress_bar": True}),
    "activation_fn": Asked({"activation_fn": np.tanh}),
    "device": Asked({"device": "tpu"}, refused="device 'tpu' is not 'cpu', a number, or one of"),
    "pool": Asked({"pool": {}}, refused="pool must be what start_multi_process_pool returned, not {}"),
    "chunk_size": Asked({"chunk_size": 2}, warned="does not use chunk_size"),
}
METHODS = {
    "predict": PREDICTING
    | {
        "inputs": Asked({"inputs": PAIRS[1:]}),
        "convert_to_numpy": Asked({"convert_to_numpy": False}, refused="needs torch"),
        "convert_to_tensor": Asked({"convert_to_tensor": True}, refused="needs torch"),
        "kwargs": ANY,
    },
    "rank": PREDICTING
    | {
        "query": Asked({"query": "what"}),
        "documents": Asked({"documents": DOCUMENTS[1:]}),
        "top_k": Asked({"top_k": 0}),
        "return_documents": Asked({"return_documents": True}),
    },
}
WITHOUT_EFFECT = {"apply_softmax"}  # on one score a pair, in sentence-transformers too


@pytest.fixture
def place(hub: FakeHub, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A working directory with another model in it, and the tiny one on the hub."""
    hub.publish("test/tiny", tiny)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "usual"))
    write_checkpoint(tmp_path / "work" / "other", tensors=random_tensors(TINY, seed=1))
    monkeypatch.chdir(tmp_path / "work")
    return hub


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> CrossEncoder:
    return CrossEncoder(tiny, prompts={"ask": "what is "})


def test_no_argument_is_forgotten() -> None:
    assert set(FLAG) == parameters(FlagReranker)
    assert set(COMPUTING) == parameters(FlagReranker.compute_score)
    assert set(CROSS) == parameters(CrossEncoder)
    for name, cases in METHODS.items():
        assert set(cases) == parameters(getattr(CrossEncoder, name)) - WITHOUT_EFFECT
    public = {name for name in vars(CrossEncoder) if not name.startswith("_") and callable(getattr(CrossEncoder, name))}
    assert public == set(METHODS)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", FLAG)
def test_loading_a_flag_reranker(tiny: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    if name == "use_fp16":  # which on a CPU changes only what the model is asked for
        monkeypatch.setattr("mlx_rerank.scoring.loaded.parse_dtype", lambda dtype: asked.append(dtype) or _float32())

    def load(model_name_or_path: str | Path = tiny, **options: Any) -> tuple[Any, ...]:
        asked.clear()
        reranker = FlagReranker(str(model_name_or_path), **options)
        return reranker.compute_score(PAIRS), [*asked], sorted(path.name for path in tmp_path.glob("*/*"))

    FLAG[name].check(load)


def _float32() -> Any:
    import mlx.core as mx

    return mx.float32


@pytest.mark.parametrize("name", COMPUTING)
def test_computing_with_a_flag_reranker(tiny: Path, name: str) -> None:
    reranker = FlagReranker(str(tiny), max_length=64)
    COMPUTING[name].check(lambda sentence_pairs=PAIRS, **options: reranker.compute_score(sentence_pairs, **options))


@pytest.mark.parametrize("name", [*CROSS, *OLD])
def test_loading_a_cross_encoder(tiny: Path, place: FakeHub, tmp_path: Path, name: str) -> None:
    def load(**options: Any) -> tuple[Any, ...]:
        place.authorizations.clear()
        if not {"model_name", "model_name_or_path"} & options.keys():
            options["model_name_or_path"] = tiny
        encoder = CrossEncoder(**options)
        card = vars(encoder.model_card_data)
        return encoder.predict(PAIRS), encoder.reranker.dtype, card, place.authorizations, sorted(tmp_path.glob("*/*"))

    (CROSS | OLD)[name].check(load)


@pytest.mark.parametrize(("method", "name"), [(method, name) for method in METHODS for name in METHODS[method]])
def test_methods_of_a_cross_encoder(
    encoder: CrossEncoder,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    name: str,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # takes seconds
    usual = {"inputs": PAIRS} if method == "predict" else {"query": "panda", "documents": DOCUMENTS}

    def call(**options: Any) -> tuple[Any, bool]:
        return getattr(encoder, method)(**{**usual, **options}), "Scoring" in capsys.readouterr().err

    METHODS[method][name].check(call)
