"""How CrossEncoder is loaded: what files beside the model say, dtypes, devices, names of models and of arguments."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import bounds
import numpy as np
import pytest
from fake_hub import COMMIT, FakeHub

from mlx_rerank import CrossEncoder, Reranker
from mlx_rerank.convert import convert
from mlx_rerank.errors import CheckpointError, InputError
from mlx_rerank.models.mapping import sigmoid
from mlx_rerank.train import train
from mlx_rerank.train.examples import Example

pytestmark = pytest.mark.numeric
PAIRS = [["panda", "the bear"], ["what is panda", "a bear"], ["", ""]]


def test_lengths(tiny: Path, checkpoint) -> None:
    assert CrossEncoder(tiny).max_length == 64  # its tokenizer says 512, which is more than it has positions for
    assert CrossEncoder(tiny, processor_kwargs={"model_max_length": 20}).max_length == 20
    encoder = CrossEncoder(tiny, 1, 30)
    assert encoder.reranker.max_length == encoder.max_length == encoder.max_seq_length == 30
    encoder.max_seq_length = 12
    assert encoder.max_length == 12
    with pytest.warns(UserWarning, match="max_length 65 exceeds this model's 64 tokens") as caught:
        encoder.max_length = 65
    assert caught[0].filename == __file__
    assert encoder.max_length == 64
    with pytest.raises(InputError, match="max_length 4 leaves no room"):
        encoder.max_length = 4
    with pytest.warns(UserWarning, match="max_length 512 exceeds") as caught:
        CrossEncoder(tiny, max_length=512)
    assert caught[0].filename == __file__
    assert CrossEncoder(checkpoint(tokenizer_config={"model_max_length": 40})).max_length == 40


def test_a_tokenizer_without_a_length(checkpoint) -> None:
    assert CrossEncoder(checkpoint(tokenizer_config={"model_max_length": 10**30})).max_length == 64


@pytest.mark.parametrize(
    ("config", "saved", "expected"),
    [
        ({}, {}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, {}, "identity"),
        ({"sentence_transformers": {"version": "4.1.0"}}, {}, "sigmoid"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, {}, "identity"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, {}, "sigmoid"),
        ({}, {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity"}, "identity"),
        ({}, {"model_type": "SentenceTransformer", "activation_fn": "torch.nn.Identity"}, "sigmoid"),
    ],
)
def test_the_checkpoints_activation(checkpoint, config: dict, saved: dict, expected: str) -> None:
    directory = checkpoint(config, config_sentence_transformers=saved)
    activation = CrossEncoder(directory).activation_fn
    assert activation is not None
    assert activation.__name__ == expected
    assert CrossEncoder(directory, activation_fn=np.tanh).activation_fn is np.tanh


def test_activations_of_a_checkpoint_that_are_not_here(checkpoint) -> None:
    directory = checkpoint({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"})
    with pytest.raises(InputError, match=r"pass activation_fn=torch.nn.modules.activation.Tanh\(\)"):
        CrossEncoder(directory)
    config = json.loads((directory / "config.json").read_text()) | {"sbert_ce_default_activation_function": "own.Code"}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match=r"own\.Code is code that is not run") as caught:
        assert CrossEncoder(directory).activation_fn is sigmoid
    assert caught[0].filename == __file__


def test_files_beside_the_model_that_are_damaged(checkpoint) -> None:
    directory = checkpoint(config_sentence_transformers=["no object"])
    with pytest.raises(CheckpointError, match=r"config_sentence_transformers\.json holds a list"):
        CrossEncoder(directory)
    (directory / "config_sentence_transformers.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        CrossEncoder(directory)
    (directory / "config_sentence_transformers.json").unlink()
    (directory / "tokenizer_config.json").write_text('{"model_max_length": "64"}')
    with pytest.raises(CheckpointError, match="model_max_length is '64'"):
        CrossEncoder(directory)


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, "float32"),
        ({"model_kwargs": {"torch_dtype": "float16"}}, "float16"),
        ({"model_kwargs": {"dtype": "torch.bfloat16"}}, "bfloat16"),  # what str() makes of torch's own
        ({"automodel_args": {"dtype": "bfloat16"}}, "bfloat16"),
    ],
)
def test_dtypes(tiny: Path, options: dict[str, Any], dtype: str) -> None:
    assert CrossEncoder(tiny, device="cpu", **options).reranker.dtype == dtype


def test_the_dtype_auto_is_the_rerankers_own(tiny: Path) -> None:
    assert CrossEncoder(tiny, model_kwargs={"dtype": "auto"}).reranker.dtype == Reranker(tiny).dtype
    with pytest.raises(InputError, match="dtype 'int8'"):
        CrossEncoder(tiny, model_kwargs={"dtype": "int8"})


@pytest.mark.filterwarnings("ignore:mlx-rerank. there is no device")
@pytest.mark.parametrize(
    ("options", "dtype", "device"),
    [
        ({}, "float32", None),  # also on a GPU, where the reranker's own is float16
        ({"device": "mps", "model_kwargs": {"torch_dtype": "float16"}}, "float16", None),
        ({"device": "cpu", "model_kwargs": {"dtype": "auto"}}, None, "cpu"),
    ],
)
def test_what_the_reranker_is_to_compute_in_and_on(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], dtype: str | None, device: str | None
) -> None:
    given: dict[str, Any] = {}

    def load(directory: Path, **arguments: Any) -> Reranker:
        given.update(arguments)
        return Reranker(directory)

    monkeypatch.setattr("mlx_rerank.compat.sentence_transformers.cross_encoder.Reranker", load)
    before = copy.deepcopy(options)
    CrossEncoder(tiny, **options)
    assert given == {"dtype": dtype, "device": device, "max_length": 64, "cpu_threads": None}
    assert options == before


def test_models_of_the_hub(
    hub: FakeHub, tiny: Path, encoder: CrossEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish("test/tiny", tiny)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "home"))
    for folder in (None, str(tmp_path / "folder")):
        found = CrossEncoder("test/tiny", revision=COMMIT, max_length=64, cache_folder=folder).predict(PAIRS)
        np.testing.assert_allclose(found, encoder.predict(PAIRS), rtol=0, atol=bounds.SCORE)
    assert (tmp_path / "home" / "models--test--tiny").is_dir()
    assert (tmp_path / "folder" / "models--test--tiny").is_dir()
    assert not any("main" in path for path in hub.asked)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", "")  # as if it were not there
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "usual"))
    assert CrossEncoder("test/tiny", revision=COMMIT)
    assert (tmp_path / "usual" / "models--test--tiny").is_dir()
    asked = len(hub.asked)
    assert CrossEncoder("test/tiny", revision=COMMIT, local_files_only=True)
    assert len(hub.asked) == asked


@pytest.mark.filterwarnings("ignore:mlx-rerank. there is no device")
@pytest.mark.parametrize("device", [None, "mps", "cuda", "cuda:0", "cpu"])
def test_device_names_of_torch_work(tiny: Path, device: str | None) -> None:
    encoder = CrossEncoder(tiny, device=device)
    found = {"gpu": "mps" if sys.platform == "darwin" else "cuda", "cpu": "cpu"}[encoder.reranker.device]
    assert encoder.device == encoder.device.type == str(encoder.device) == found
    assert device != "cpu" or encoder.device == "cpu"


def test_names_of_version_5_work(tiny: Path, encoder: CrossEncoder) -> None:
    names: dict[str, Any] = {
        "model_name": str(tiny),
        "default_activation_function": np.tanh,
        "tokenizer_kwargs": {"model_max_length": 30},
        "config_args": {"num_labels": 1},
        "cache_dir": "unused",
    }
    old = CrossEncoder(**names)
    assert (old.activation_fn, old.max_length, old.num_labels) == (np.tanh, 30, 1)
    expected = encoder.predict(PAIRS, activation_fn=np.tanh)
    given: dict[str, Any] = {"sentences": PAIRS, "activation_fct": np.tanh}
    np.testing.assert_allclose(encoder.predict(**given), expected, rtol=0, atol=bounds.COMPANY)
    both: dict[str, Any] = {"activation_fct": np.exp, "activation_fn": np.tanh}
    np.testing.assert_allclose(encoder.predict(PAIRS, **both), expected, rtol=0, atol=bounds.COMPANY)


def test_settings_go_with_every_copy(checkpoint, hub: FakeHub, tmp_path: Path) -> None:
    saved = {
        "model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity",
        "prompts": {"find": "find what is "}, "default_prompt_name": "find",
    }  # fmt: skip
    directory = checkpoint(tokenizer_config={"model_max_length": 12}, config_sentence_transformers=saved)
    expected = CrossEncoder(directory).predict(PAIRS)
    assert np.abs(expected - Reranker(directory).score([tuple(pair) for pair in PAIRS])).min() > 0.01
    hub.publish("test/saved", Path(directory))
    copies = [directory]
    copies.append(convert(directory, tmp_path / "converted", dtype="float32"))
    copies.append(train([Example("panda", ("the bear", "a sea"), (1, 0))], tmp_path / "trained", model=directory))
    for copy_ in copies:
        found = CrossEncoder(copy_)
        assert (found.max_length, found.prompts, found.default_prompt_name) == (12, saved["prompts"], "find")
    np.testing.assert_allclose(CrossEncoder(copies[1]).predict(PAIRS), expected, rtol=0, atol=bounds.TINY)
    from_hub = CrossEncoder("test/saved", cache_folder=str(tmp_path / "hub"))
    np.testing.assert_allclose(from_hub.predict(PAIRS), expected, rtol=0, atol=bounds.TINY)
