"""ModernBERT under sentence-transformers' modules: a head as data, and folders whose files decide a score."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from tokenizers import Tokenizer

from families.checks import PAIRS, FamilyChecks, original_logits, seeded, write
from families.test_modernbert import TestModernBert as Plain
from families.test_modernbert import byte_level
from mlx_rerank import CrossEncoder, Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.errors import CheckpointError, UnsupportedModelError
from mlx_rerank.models import family_of
from mlx_rerank.models.encoders.modernbert_modules import FAMILY
from mlx_rerank.models.family import MODULES_KEY

ROOT = "sentence_transformers."
IDENTITY = "torch.nn.modules.linear.Identity"
NAMES = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}


def head(width: int, pooling: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the modules of an ettin reranker, whose dense layer here narrows the vector."""
    return [
        {"type": ROOT + "sentence_transformer.modules.pooling.Pooling", "path": "1_Pooling"} | pooling,
        {"type": ROOT + "base.modules.dense.Dense", "path": "2_Dense", "in_features": width, "out_features": 48}
        | {"bias": False, "activation_function": "torch.nn.modules.activation.GELU"}
        | NAMES,
        {"type": ROOT + "sentence_transformer.modules.layer_norm.LayerNorm", "path": "3_LayerNorm", "dimension": 48},
        {"type": ROOT + "base.modules.dense.Dense", "path": "4_Dense", "in_features": 48, "out_features": 1}
        | {"bias": True, "activation_function": IDENTITY}
        | NAMES
        | {"module_output_name": "scores"},
    ]


HEAD = head(64, {"pooling_mode": "cls", "embedding_dimension": 64})
OLD_MEAN = {"word_embedding_dimension": 64, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}


def changed(place: int, **change: Any) -> dict[str, Any]:
    """Return the head with a change of one module, as a change of a config."""
    return {MODULES_KEY: [module | change if n == place else module for n, module in enumerate(HEAD)]}


class TestModularModernBert(FamilyChecks):
    name = "modernbert-modules"
    config: ClassVar[dict[str, Any]] = {
        key: value for key, value in Plain.config.items() if key not in ("classifier_pooling", "id2label", "label2id")
    } | {"architectures": ["ModernBertModel"], MODULES_KEY: HEAD}
    real: ClassVar[dict[str, Any]] = {  # of cross-encoder/ettin-reranker-17m-v1, of fewer pieces
        "vocab_size": 2000,
        "hidden_size": 256,
        "intermediate_size": 384,
        "max_position_embeddings": 8192,
        "local_attention": 128,
        MODULES_KEY: head(256, {"pooling_mode": "cls", "embedding_dimension": 256}),
    }
    refused: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({"architectures": ["ModernBertForMaskedLM"]}, "ModernBertForMaskedLM"),
        ({"mlp_bias": True}, "mlp_bias"),
        (changed(0, pooling_mode="max"), "'max' in 1_Pooling"),
        (changed(0, include_prompt=False), "include_prompt"),
        (changed(1, use_residual=True), "use_residual"),
        (changed(1, module_input_name="token_embeddings"), "token_embeddings"),
        (changed(1, module_output_name="other"), "other"),
        (changed(1, activation_function="torch.nn.modules.activation.ReLU"), "ReLU"),
        (changed(1, dropout=0.5), "dropout"),
        (changed(2, type=ROOT + "sentence_transformer.modules.normalize.Normalize"), "Normalize"),
        (changed(1, type="own.Dense"), "own.Dense"),
        ({MODULES_KEY: HEAD[:3]}, "scores"),
    ]
    trims = False
    # FlagEmbedding reads no modules, and the activation is that of the modules' files: see below
    test_flag_reranker_agrees_with_the_original: Any = None
    test_cross_encoder_agrees_with_the_original: Any = None

    @staticmethod
    def tokenizer() -> Tokenizer:
        return byte_level()


@pytest.mark.parametrize("pooling", [OLD_MEAN, {"pooling_mode": "mean", "embedding_dimension": 64}])
def test_a_mean_and_the_older_keys(tmp_path: Path, pooling: dict[str, Any]) -> None:
    config = TestModularModernBert.config | {MODULES_KEY: head(64, pooling)}
    directory = write(tmp_path / "model", config, seeded(FAMILY, config), byte_level())
    found = Reranker(directory).logits(PAIRS[:4]).logits
    np.testing.assert_allclose(found, original_logits(directory, PAIRS[:4]), atol=1e-4, rtol=0)
    face = CrossEncoder(str(directory), device="cpu").predict(PAIRS[:4])  # its activation is saved as Identity
    np.testing.assert_allclose(face, found, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(0, embedding_dimension=32), "1_Pooling"),
        (changed(1, in_features=32), "2_Dense"),
        (changed(2, dimension=64), "3_LayerNorm"),
        (changed(3, out_features=2), "4_Dense"),
        (changed(1, bias=None), "2_Dense"),
        ({MODULES_KEY: "1_Pooling"}, "a list of modules"),
        ({MODULES_KEY: [{}]}, "a list of modules"),
    ],
)
def test_modules_whose_sizes_do_not_fit_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        FAMILY.shape(TestModularModernBert.config | change)


def test_files_of_modules_decide_a_score(tmp_path: Path) -> None:
    config = TestModularModernBert.config
    directory = write(tmp_path / "model", config, seeded(FAMILY, config), byte_level())
    checkpoint = Checkpoint.open(directory)
    assert checkpoint.identity.changed() == []
    shutil.copy(directory / "4_Dense" / "model.safetensors", tmp_path / "kept")
    shutil.copy(tmp_path / "kept", directory / "4_Dense" / "model.safetensors")
    assert checkpoint.identity.changed() == ["4_Dense/model.safetensors"]


def test_folders_that_lead_elsewhere_and_models_without_modules_are_refused(tmp_path: Path) -> None:
    config = TestModularModernBert.config
    directory = write(tmp_path / "model", config, seeded(FAMILY, config), byte_level())
    listed = json.loads((directory / "modules.json").read_text())
    listed[2]["path"] = "../2_Dense"
    (directory / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(UnsupportedModelError, match=r"\.\./2_Dense"):
        Checkpoint.open(directory)
    with pytest.raises(UnsupportedModelError, match="an embedding model"):
        family_of({key: value for key, value in config.items() if key != MODULES_KEY})
