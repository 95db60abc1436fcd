"""From names to directories; the hub itself is a local stand-in."""

import threading
from pathlib import Path

import bounds
import numpy as np
import pytest
from checkpoints import write_checkpoint
from fake_hub import COMMIT, FakeHub

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.hub import EMBEDDED, _interruptible, commit_of, public_name, resolve
from mlx_rerank.errors import CheckpointNotFoundError, InputError


def test_embedded_and_local_names(tmp_path: Path) -> None:
    assert resolve("mini") == EMBEDDED["mini"]
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path
    assert commit_of(tmp_path) is None
    assert commit_of(tmp_path / "snapshots" / COMMIT) == COMMIT


def test_names_to_show_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "model").mkdir(parents=True)
    assert public_name("BAAI/bge-reranker-v2-m3") == "BAAI/bge-reranker-v2-m3"
    assert public_name("mini") == "mini"
    for directory in ("own/model", "./own/model", str(tmp_path / "own" / "model"), Path("own/model"), "a/b/model"):
        assert public_name(directory) == "model"  # no one else is shown where it is
    for absent in ("./gone", "/gone", "~/gone", Path("some/gone"), "a/b/gone"):
        assert public_name(absent) == "gone"


@pytest.mark.parametrize("model", ["", " ", None, 5, b"mini", True])
def test_what_is_no_name(model: object) -> None:
    with pytest.raises(CheckpointNotFoundError, match="a model is a name, a hub id or a directory, not"):
        resolve(model)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "model", ["gone", "a/b/c", "./gone", "/gone/model", "~/gone", Path("some/model"), Path("mini")]
)
def test_what_is_neither_there_nor_a_hub_id(model: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointNotFoundError, match="is not a directory, not a hub id like"):
        resolve(model)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointNotFoundError, match="is a file; give the directory that holds"):
        resolve(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["~nosuchuser/model", "x" * 5000, "null\0"])
def test_names_that_no_file_system_takes(name: str) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"cannot be a model|is not a directory"):
        resolve(name)
    assert public_name(name) == name  # to show: what cannot be loaded is refused later


def test_a_revision_is_of_the_hub(tmp_path: Path) -> None:
    for model, what in ((tmp_path, "is a directory"), (str(tmp_path), "is a directory"), ("mini", "is built in")):
        with pytest.raises(InputError, match=f"revision 'v1' is for models of the hub, and .* {what}: leave it out"):
            Reranker(model, revision="v1")


@pytest.mark.parametrize("name", ["revision", "cache_dir"])
@pytest.mark.parametrize("value", ["", " ", 0, False])
def test_empty_arguments_are_not_taken_for_none(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name} {value!r} is empty or no text"):
        resolve("test/tiny", **{name: value})  # pyright: ignore[reportArgumentType]


@pytest.fixture
def hub(hub: FakeHub, tmp_path: Path) -> FakeHub:
    """The hub with a checkpoint in the repository test/tiny."""
    served = write_checkpoint(tmp_path / "served")
    (served / "unwanted.onnx").write_bytes(b"x")
    hub.publish("test/tiny", served)
    return hub


@pytest.mark.numeric
def test_a_hub_id_is_downloaded_and_scores(hub: FakeHub, tiny_reranker: Reranker, tmp_path: Path) -> None:
    directory = resolve("test/tiny", cache_dir=tmp_path / "cache")
    assert commit_of(directory) == COMMIT
    assert not any("onnx" in path for path in hub.asked if "resolve" in path)
    reranker = Reranker("test/tiny", cache_dir=tmp_path / "cache")
    pairs = [("panda", "the bear")]
    np.testing.assert_allclose(reranker.score(pairs), tiny_reranker.score(pairs), rtol=0, atol=bounds.SCORE)


@pytest.mark.numeric
def test_local_files_only_stays_off_the_network(hub: FakeHub, tmp_path: Path) -> None:
    where = {"cache_dir": tmp_path / "cache", "local_files_only": True}
    with pytest.raises(CheckpointNotFoundError, match="'test/tiny' could not be fetched"):
        resolve("test/tiny", **where)
    assert not hub.asked
    directory = resolve("test/tiny", cache_dir=tmp_path / "cache")
    asked = len(hub.asked)
    assert resolve("test/tiny", **where) == directory
    assert len(hub.asked) == asked


def test_the_token_reaches_the_hub(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_machine")
    for token, sent in (("hf_given", "Bearer hf_given"), (None, "Bearer hf_of_the_machine"), (False, None)):
        hub.authorizations.clear()
        resolve("test/tiny", cache_dir=tmp_path / f"cache-{token}", token=token)
        assert hub.authorizations == {sent}


@pytest.mark.usefixtures("hub")
def test_what_the_hub_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"'test/missing' could not .*\(check its name .* directory\)"):
        resolve("test/missing", cache_dir=tmp_path / "cache")


def test_a_download_keeps_no_process_from_its_end(tmp_path: Path) -> None:
    assert _interruptible(lambda: tmp_path / str(threading.current_thread().daemon)) == tmp_path / "True"
