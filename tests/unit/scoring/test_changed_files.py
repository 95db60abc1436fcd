"""Files that are replaced under a loaded model: no score is of two models, and no cache takes one's for the other's."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import TINY, random_tensors, tiny_tokenizer, write_checkpoint
from fake_hub import COMMIT, FakeHub
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from mlx_rerank import CrossEncoder, Reranker
from mlx_rerank.convert import convert
from mlx_rerank.errors import ChangedCheckpointError, CheckpointError, DeviceError
from mlx_rerank.scoring.loaded import LoadedModel

PAIRS = [("panda", "the bear"), ("panda", "what is panda"), ("", "熊猫吃竹子")]


@pytest.fixture
def source(tiny: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny, tmp_path / "source")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another model of the same shape, whose vocabulary has the same size and another order."""
    tokenizer = tiny_tokenizer().to_str().replace("▁panda", "\0").replace("▁bear", "▁panda").replace("\0", "▁bear")
    return write_checkpoint(
        tmp_path / "other", tensors=random_tensors(TINY, seed=1), tokenizer=Tokenizer.from_str(tokenizer)
    )


def replace(directory: Path, other: Path, *names: str) -> None:
    for name in names or [path.name for path in other.iterdir()]:
        shutil.copyfile(other / name, directory / "new")
        (directory / "new").replace(directory / name)


def logits(reranker: Reranker) -> np.ndarray:
    return reranker.logits(PAIRS).logits


@pytest.mark.parametrize("names", [(), ("model.safetensors",), ("tokenizer.json",), ("config.json",)])
@pytest.mark.parametrize("embeddings", ["resident", "mapped"])
def test_what_was_unloaded_is_not_read_again(
    source: Path, other: Path, tmp_path: Path, names: tuple[str, ...], embeddings: str
) -> None:
    cache = tmp_path / "scores.db"
    reranker = Reranker(source, score_cache=cache, embeddings=embeddings)
    logits(reranker)
    replace(source, other, *names)
    reranker.unload()
    with pytest.raises(ChangedCheckpointError, match="has changed since it was opened"):
        reranker.logits([("what", "is panda")])
    fresh = Reranker(source, score_cache=cache)
    np.testing.assert_array_equal(logits(fresh), logits(Reranker(source)))
    assert (logits(fresh) != logits(Reranker(other if not names else source, dtype="float16"))).any()


def test_what_is_in_memory_goes_on(source: Path, other: Path) -> None:
    reranker = Reranker(source, embeddings="resident")
    expected = logits(reranker)
    replace(source, other)
    np.testing.assert_array_equal(logits(reranker), expected)


@pytest.mark.parametrize("read", ["encoder", "load", "fingerprint"])
def test_files_that_change_while_they_are_read(
    source: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    from mlx_rerank.checkpoints.checkpoint import Checkpoint

    original = getattr(Checkpoint, read)

    def late(self: Checkpoint, *arguments: object, **options: object) -> object:
        replace(source, other)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Checkpoint, read, late)
    with pytest.raises(ChangedCheckpointError):
        Reranker(source, score_cache=tmp_path / "scores.db")


def test_nothing_is_written_of_two_models(
    source: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_rerank.checkpoints import weights

    def late(*arguments: object) -> None:
        replace(source, other, "tokenizer.json")
        save(*arguments)  # pyright: ignore[reportArgumentType]

    save = weights.save
    monkeypatch.setattr(weights, "save", late)
    with pytest.raises(ChangedCheckpointError, match=r"\(tokenizer\.json\)"):
        convert(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "source"]


def test_settings_are_those_of_the_model(source: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = LoadedModel.__init__

    def late(self: LoadedModel, *arguments: object, **options: object) -> None:
        replace(source, other)
        original(self, *arguments, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(LoadedModel, "__init__", late)
    with pytest.raises(ChangedCheckpointError):
        CrossEncoder(str(source))


@pytest.fixture
def start(hub: FakeHub, source: Path, tmp_path: Path) -> Callable[[str], Reranker]:
    """Start a reranker of a hub's float32 model in float16, from the hub's cache of that name."""
    hub.publish("test/tiny", source)
    return lambda name: Reranker("test/tiny", dtype="float16", cache_dir=tmp_path / name)


def snapshot(cache: Path) -> Path:
    return cache / "models--test--tiny" / "snapshots" / COMMIT


def test_a_copy_is_that_of_its_own_snapshot(start: Callable[[str], Reranker], other: Path, tmp_path: Path) -> None:
    expected = logits(start("one"))
    start("two")
    replace(snapshot(tmp_path / "two"), other)  # edited, under the same commit
    edited = logits(start("two"))
    np.testing.assert_array_equal(edited, logits(Reranker(other, dtype="float16")))
    np.testing.assert_array_equal(logits(start("one")), expected)
    assert len(list((tmp_path / "copies").glob("converted/*/[!.]*"))) == 3


def test_a_directory_named_like_no_commit_has_no_copy(start: Callable[[str], Reranker], tmp_path: Path) -> None:
    start("one")
    named = snapshot(tmp_path / "one").with_name("main")
    shutil.copytree(snapshot(tmp_path / "one"), named)
    copies = list((tmp_path / "copies").glob("converted/*/*"))
    Reranker(named, dtype="float16")
    assert list((tmp_path / "copies").glob("converted/*/*")) == copies


def test_a_copy_that_was_removed_meanwhile_is_made_again(start: Callable[[str], Reranker], tmp_path: Path) -> None:
    reranker = start("one")
    expected = logits(reranker)
    reranker.unload()
    shutil.rmtree(tmp_path / "copies")
    np.testing.assert_array_equal(logits(reranker), expected)
    (copy,) = (tmp_path / "copies").glob("converted/*/[!.]*")
    assert copy.is_dir()


def test_a_new_shape_under_a_loaded_model(source: Path, tmp_path: Path) -> None:
    reranker = Reranker(source)
    config = TINY | {"num_hidden_layers": 1}
    replace(source, write_checkpoint(tmp_path / "smaller", config, random_tensors(config)))
    reranker.unload()
    with pytest.raises(ChangedCheckpointError):
        reranker.score(PAIRS)
    reranker = Reranker(source)
    reranker.score(PAIRS)
    save_file({}, source / "model.safetensors")
    reranker.unload()
    with pytest.raises(CheckpointError) as told:
        reranker.score(PAIRS)
    assert not isinstance(told.value, DeviceError)
