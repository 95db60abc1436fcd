"""Which files decide a score, whether they are still the same, and whose they are."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_hub import COMMIT
from opening import opened_in

from mlx_rerank import CrossEncoder, Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.files import Identity, deciding, own
from mlx_rerank.convert import convert
from mlx_rerank.convert.upload import contents
from mlx_rerank.errors import ChangedCheckpointError, CheckpointError
from mlx_rerank.proof.audit import audit_checkpoint

PAIRS = [("panda", "the bear"), ("panda", "what is panda")]


@pytest.fixture
def source(tiny: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny, tmp_path / "source")


def replaced(path: Path) -> None:
    shutil.copyfile(path, path.with_name("new"))
    path.with_name("new").replace(path)


def overwritten(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def gone(path: Path) -> None:
    path.unlink()


def gone_and_back(path: Path) -> None:
    path.rename(path.with_name("away")).rename(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
@pytest.mark.parametrize("change", [replaced, overwritten, gone, gone_and_back])
def test_any_change_shows_at_once(source: Path, name: str, change: Callable[[Path], None]) -> None:
    overwritten(source / name)  # so that another change may come in the same tick of the file system's clock
    identity = Identity.of(source)
    assert identity.changed() == []
    change(source / name)
    assert identity.changed() == [name]


@pytest.mark.parametrize(
    "name", ["config_sentence_transformers.json", "other.safetensors", "model.safetensors.index.json"]
)
def test_a_file_that_appears_is_a_change(source: Path, name: str) -> None:
    identity = Identity.of(source)
    (source / name).write_text("{}")
    assert identity.changed() == [name]
    (source / "README.md").write_text("which decides nothing")
    assert identity.changed() == [name]


def test_nothing_is_read_after_a_change(source: Path) -> None:
    checkpoint = Checkpoint.open(source)
    overwritten(source / "tokenizer.json")
    for read in (checkpoint.encoder, checkpoint.tokenizer_file, lambda: checkpoint.fingerprint(str)):
        with pytest.raises(ChangedCheckpointError, match=r"\(tokenizer.json\): load the model again"):
            read()


def test_what_breaks_while_files_change_is_told_as_a_change(source: Path) -> None:
    checkpoint = Checkpoint.open(source)

    def read() -> None:
        with checkpoint.reading():
            (source / "model.safetensors").write_bytes(b"")
            raise RuntimeError("whatever reads half a file may say")

    with pytest.raises(ChangedCheckpointError):
        read()


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_no_file_is_read_that_is_not_known_to_decide(source: Path, tmp_path: Path) -> None:
    others = [
        "vocab.txt",
        "generation_config.json",
        "pytorch_model.bin",
        "sentencepiece.bpe.model",
        "adapter_config.json",
    ]
    for name in (*others, "special_tokens_map.json", "added_tokens.json", "sentence_bert_config.json"):
        (source / name).write_text("{}")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.cross_encoder.Transformer"}]
    (source / "modules.json").write_text(json.dumps(modules))
    settings = {"model_type": "CrossEncoder", "prompts": {"q": "find: "}, "default_prompt_name": "q"}
    (source / "config_sentence_transformers.json").write_text(json.dumps(settings))
    known = {path.name for path in deciding(source)}
    assert not known.intersection(others)
    with opened_in(source) as opened:
        Reranker(source, embeddings="mapped", score_cache=tmp_path / "scores").score(PAIRS)
        CrossEncoder(str(source)).predict(PAIRS)
        audit_checkpoint(str(source))
        converted = convert(source, tmp_path / "converted")
    assert opened - {"README.md", "LICENSE", "NOTICE"} == {path.name for path in deciding(source) if path.exists()}
    with opened_in(converted) as opened:
        CrossEncoder(str(converted)).predict(PAIRS)
    assert opened == {path.name for path in deciding(converted) if path.exists()}
    assert "config_sentence_transformers.json" in opened


def test_a_directory_s_own_files(source: Path, tmp_path: Path) -> None:
    (source / "NOTICE").symlink_to("tokenizer.json")
    assert own(source / "NOTICE", source) == source / "NOTICE"
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / COMMIT, tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "0123").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/0123")
    assert own(snapshot / "config.json", snapshot)
    (snapshot / "NOTICE").symlink_to(source / "config.json")
    with pytest.raises(CheckpointError, match="is a link to"):
        own(snapshot / "NOTICE", snapshot)


@pytest.mark.parametrize("name", ["LICENSE-extra", "NOTICE", "README.md", "tokenizer_config.json", "tokenizer.json"])
def test_a_link_to_elsewhere_is_neither_copied_nor_sent(source: Path, tmp_path: Path, name: str) -> None:
    converted = convert(source, tmp_path / "converted")
    secret = tmp_path / "id_rsa"
    for directory in (source, converted):
        if (directory / name).exists():
            (directory / name).replace(secret)
        else:
            secret.write_text("---\nlicense: secret\n---\n")
        (directory / name).symlink_to(secret)
        with pytest.raises(CheckpointError, match=f"{name} is a link to .*id_rsa.*put the file itself there"):
            convert(source, tmp_path / "out") if directory is source else contents(converted, "user/name")
        assert not (tmp_path / "out").exists()
        (directory / name).unlink()  # the remedy
        shutil.copyfile(secret, directory / name)
    assert convert(source, tmp_path / "out").is_dir()
    assert contents(converted, "user/name")


def test_a_link_to_itself(source: Path, tmp_path: Path) -> None:
    (source / "README.md").symlink_to("README.md")
    with pytest.raises(CheckpointError, match="link"):
        own(source / "README.md", source)


def test_a_linked_directory_is_not_sent(source: Path, tmp_path: Path) -> None:
    converted = convert(source, tmp_path / "converted")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("secret")
    (converted / "more").symlink_to(tmp_path / "secrets")
    assert "more/key" not in contents(converted, "user/name")
