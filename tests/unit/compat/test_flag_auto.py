"""FlagAutoReranker: which class a name stands for. Parity of scores is in tests/parity."""

import ast
import importlib.util
import inspect
import shutil
from pathlib import Path

import pytest

from mlx_rerank import FlagAutoReranker, FlagReranker
from mlx_rerank.compat import flag_auto
from mlx_rerank.errors import InputError, UnsupportedModelError


def theirs(path: str) -> ast.Module:
    """Return FlagEmbedding's source, read, not imported, which takes 2 s."""
    spec = importlib.util.find_spec("FlagEmbedding")
    assert spec
    assert spec.origin
    return ast.parse((Path(spec.origin).parent / "inference" / path).read_text())


def test_the_signature_is_flagembeddings() -> None:
    (method,) = (
        node
        for node in ast.walk(theirs("auto_reranker.py"))
        if isinstance(node, ast.FunctionDef) and node.name == "from_finetuned"
    )
    ours = inspect.signature(FlagAutoReranker.from_finetuned).parameters
    assert list(ours) == [*(each.arg for each in method.args.args[1:]), "kwargs"]
    defaults = [each.default for each in ours.values() if each.default is not inspect.Parameter.empty]
    assert defaults == [ast.literal_eval(each) for each in method.args.defaults]


def test_names_and_classes_are_flagembeddings() -> None:
    """All its names are known; those that are no FlagReranker there, and no ALiBi, are none here either."""
    tree = theirs("reranker/model_mapping.py")
    pairs = {
        str(node.elts[0].value): node.elts[1].args[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Tuple)
        and isinstance(node.elts[0], ast.Constant)
        and isinstance(node.elts[1], ast.Call)
        and isinstance(node.elts[1].args[0], ast.Name)
    }
    assert set(flag_auto._MODELS) == set(pairs)
    for name, kind in pairs.items():
        face = flag_auto._MODELS[name]
        known = face.__name__ if isinstance(face, type) else face
        assert known == kind or name == "jina-reranker-v1-turbo-en"
    strings = {
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    assert set(flag_auto._CLASSES) == strings


def test_there_are_no_instances() -> None:
    with pytest.raises(OSError, match="from_finetuned"):
        FlagAutoReranker()


@pytest.mark.parametrize("name", ["bge-reranker-base", "bce-reranker-base_v1", "bge-reranker-v2-m3/checkpoint-100"])
def test_a_model_is_known_by_its_name(tiny: Path, tmp_path: Path, name: str) -> None:
    reranker = FlagAutoReranker.from_finetuned(str(shutil.copytree(tiny, tmp_path / name)), use_fp16=True, max_length=9)
    assert type(reranker) is FlagReranker
    assert (reranker.max_length, reranker.model_name_or_path) == (9, str(tmp_path / name))


def test_any_other_name_needs_a_class(tiny: Path) -> None:
    with pytest.raises(ValueError, match=r"'tiny' is not one of bge-reranker-base, .*model_class='encoder-only-base'"):
        FlagAutoReranker.from_finetuned(str(tiny))
    with pytest.raises(InputError, match="'other' is not one of encoder-only-base, "):
        FlagAutoReranker.from_finetuned(str(tiny), model_class="other")
    assert FlagAutoReranker.from_finetuned(str(tiny), "encoder-only-base", normalize=True).normalize


@pytest.mark.parametrize(
    ("name", "model_class", "missing"),
    [
        ("BAAI/bge-reranker-v2-gemma", None, "FlagLLMReranker"),
        ("BAAI/bge-reranker-v2-minicpm-layerwise", None, "LayerWiseFlagLLMReranker"),
        ("BAAI/bge-reranker-v2.5-gemma2-lightweight", None, "LightWeightFlagLLMReranker"),
        ("jinaai/jina-reranker-v1-turbo-en", None, "ALiBi"),
        ("any", "decoder-only-base", "FlagLLMReranker"),
        ("any", "decoder-only-layerwise", "LayerWiseFlagLLMReranker"),
        ("any", "decoder-only-lightweight", "LightWeightFlagLLMReranker"),
    ],
)
def test_what_does_not_run_is_named(name: str, model_class: str | None, missing: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"{name} needs .*{missing}"):
        FlagAutoReranker.from_finetuned(name, model_class)


def test_code_of_a_checkpoint_is_not_run(tiny: Path) -> None:
    with pytest.warns(UserWarning, match="does not use trust_remote_code") as caught:
        FlagAutoReranker.from_finetuned(str(tiny), "encoder-only-base", trust_remote_code=True)
    assert caught[0].filename == __file__
