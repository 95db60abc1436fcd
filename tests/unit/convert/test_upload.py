"""Uploading, with the hub library's own client, to a local stand-in for the hub."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import bounds
import numpy as np
import pytest
from checkpoints import write_checkpoint
from fake_hub import TOKEN, FakeHub, Repository

from mlx_rerank import Reranker, cli
from mlx_rerank.checkpoints.card import renamed
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.convert import convert
from mlx_rerank.convert.upload import contents, require_login, upload
from mlx_rerank.errors import CheckpointError, InputError, UploadError

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # what the library does

UNREACHABLE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have a token, and send large files the plain way: the stand-in has no Xet storage."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


@pytest.fixture
def converted(tiny: Path, tmp_path: Path) -> Path:
    """A converted directory to which its owner added a few things."""
    directory = convert(tiny, tmp_path / "converted")
    (directory / "NOTICE").write_text("whose it is")
    (directory / "images").mkdir()
    (directory / "images" / "panda.png").write_bytes(b"\x89PNG")
    (directory / ".DS_Store").write_bytes(b"x")
    return directory


def held(directory: Path) -> dict[str, bytes]:
    """Return the files of a directory by name, hidden ones excepted."""
    paths = (path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def command(*arguments: str | Path) -> int:
    """Run a command in this process and return its exit code."""
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(argument) for argument in arguments])
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def test_every_file_is_sent_in_one_commit(hub: FakeHub, converted: Path) -> None:
    before = held(converted)
    assert upload(converted, "user/tiny") == f"{hub.address}/user/tiny"
    sent = hub.repositories["user/tiny"]
    assert sorted(sent.files) == [
        "NOTICE", "README.md", "config.json", "images/panda.png", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    card = sent.files.pop("README.md").decode()
    assert sent.files == {name: content for name, content in before.items() if name != "README.md"}
    assert list(hub.objects.values()) == [before["model.safetensors"]]
    assert len(sent.commits) == 1
    assert "mlx-rerank" in sent.commits[0]
    assert not sent.private
    assert held(converted) == before
    assert "\n# user/tiny\n" in card
    assert 'Reranker("user/tiny")' in card
    assert "converted" not in card.replace("converted from", "")  # the directory's name
    for line in ("library_name: mlx", "pipeline_tag: text-ranking", "- mlx-rerank"):
        assert f"\n{line}\n" in card


def test_what_was_uploaded_is_loaded_by_its_name(hub: FakeHub, converted: Path, tmp_path: Path) -> None:
    upload(converted, "user/tiny")
    pairs = [("panda", "the bear"), ("what is panda", "")]
    loaded = Reranker("user/tiny", cache_dir=tmp_path / "cache")
    np.testing.assert_allclose(loaded.score(pairs), Reranker(converted).score(pairs), rtol=0, atol=bounds.SCORE)


def test_converting_and_uploading_at_once(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish("BAAI/tiny", write_checkpoint(tmp_path / "served"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    target = tmp_path / "target"
    options = ["--hf-path", "BAAI/tiny", "--mlx-path", target, "--upload-repo", "user/tiny", "--private"]
    assert command("convert", *options) == 0
    sent = hub.repositories["user/tiny"]
    assert sent.files == held(target)  # the card, too
    assert sent.private
    assert b"\nbase_model: BAAI/tiny\n" in sent.files["README.md"]
    assert b"# user/tiny\n" in sent.files["README.md"]
    out, err = capsys.readouterr()
    assert out == f"{hub.address}/user/tiny\n"
    assert f"wrote {target}" in err


def test_an_existing_repository_is_added_to(hub: FakeHub, converted: Path) -> None:
    hub.repositories["user/tiny"] = Repository({".gitattributes": b"*.safetensors", "config.json": b"{}"})
    upload(converted, "user/tiny")
    files = hub.repositories["user/tiny"].files
    assert files[".gitattributes"] == b"*.safetensors"
    assert files["config.json"] == (converted / "config.json").read_bytes()


def test_a_public_repository_gets_nothing_that_should_be_private(hub: FakeHub, converted: Path) -> None:
    hub.repositories["user/tiny"] = Repository()
    with pytest.raises(UploadError, match=r"user/tiny is public.* is kept, and .* --private` tries again"):
        upload(converted, "user/tiny", private=True)
    assert hub.repositories["user/tiny"].files == {}
    hub.repositories["user/tiny"].private = True
    upload(converted, "user/tiny", private=True)
    assert "model.safetensors" in hub.repositories["user/tiny"].files


def test_a_dry_run_shows_what_would_be_sent_and_asks_nothing(
    hub: FakeHub, tiny: Path, converted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert command("upload", converted, "user/tiny", "--dry-run") == 0
    shown = capsys.readouterr().out
    for name, content in contents(converted, "user/tiny").items():
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        assert f"{size:,}  {name}\n" in shown
    assert "pipeline_tag: text-ranking" in shown
    assert "# user/tiny" in shown
    target = converted.parent / "target"
    assert command("convert", "--hf-path", tiny, "--mlx-path", target, "--upload-repo", "a/b", "--dry-run") == 0
    assert f"nothing is sent. {target} would go to a/b" in capsys.readouterr().out
    assert (target / "model.safetensors").is_file()
    assert hub.asked == []


@pytest.mark.parametrize("repo_id", ["tiny", "a/b/c", "user/", "/tiny", "a b/c", "user/x--y", "user/x.git", ""])
def test_names_that_are_no_repository(hub: FakeHub, converted: Path, repo_id: str) -> None:
    with pytest.raises(InputError, match="of the form 'user/name'"):
        upload(converted, repo_id)
    assert hub.asked == []


def test_directories_that_are_not_sent(hub: FakeHub, tiny: Path, converted: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="was not converted by mlx-rerank"):
        upload(tiny, "user/tiny")
    with pytest.raises(CheckpointError, match="nowhere is not a directory: give one"):
        upload(tmp_path / "nowhere", "user/tiny")
    with pytest.raises(CheckpointError, match="has no config"):
        upload(tmp_path, "user/tiny")
    (converted / "README.md").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match=r"README\.md cannot be read as text"):
        upload(converted, "user/tiny")
    (converted / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        upload(converted, "user/tiny")
    (tmp_path / "tokenizer.json").rename(converted / "tokenizer.json")
    (converted / "model.safetensors").write_bytes((converted / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        upload(converted, "user/tiny")
    assert hub.asked == []


def test_refusals_say_why_and_keep_the_directory(hub: FakeHub, converted: Path) -> None:
    before = held(converted)
    for request, status, message, explanation in (
        ("POST /api/repos/create", 401, "Invalid username or password.", "answered 401 .*run `hf auth login`"),
        ("POST /api/repos/create", 403, "You have no rights here", "answered 403 .*no rights here; does the token"),
        ("POST /user/tiny.git", 403, "Storage\nis full", "answered 403 Forbidden; Storage is full"),
        ("PUT /storage", 403, "Signature expired", "answered 403 Forbidden; Signature expired"),
        ("POST /api/validate-yaml", 400, "license: no such", "answered 400 Bad Request; license: no such"),
        ("POST /api/models/user/tiny/commit", 500, "out of order", "answered 500 Internal Server Error; out of order"),
    ):
        hub.refusals = {request: (status, message)}
        with pytest.raises(UploadError, match=explanation) as caught:
            upload(converted, "user/tiny")
        again = f"; {converted} is kept, and `mlx-rerank upload {converted} user/tiny` tries again"
        assert str(caught.value).startswith("user/tiny could not be uploaded: ")
        assert str(caught.value).endswith(again)
        assert "\n" not in str(caught.value)
        assert held(converted) == before
    hub.refusals = {}
    assert hub.repositories["user/tiny"].files == {}
    upload(converted, "user/tiny")


def test_a_hub_that_cannot_be_asked(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", UNREACHABLE)
    with pytest.raises(UploadError, match=rf"refused.*can {UNREACHABLE} be reached\?; .* is kept"):
        upload(converted, "user/tiny")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UploadError, match=r"unset HF_HUB_OFFLINE; .* is kept"):
        upload(converted, "user/tiny")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UploadError, match=r"there is no token: run `hf auth login`.* is kept"):
        upload(converted, "user/tiny")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--upload-repo", "no-slash"], "'no-slash' is not a repository of the form 'user/name'"),
        (["--dry-run"], "say where to with --upload-repo"),
        (["--private"], "say where to with --upload-repo"),
        (["--upload-repo", "user/tiny"], "run `hf auth login`"),
    ],
)
def test_what_would_fail_after_the_conversion_fails_before_it(
    hub: FakeHub, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    hub.refusals = {"whoami": (401, "Invalid username or password.")}
    assert command("convert", "--hf-path", tiny, "--mlx-path", tmp_path / "target", *options) == 1
    out, err = capsys.readouterr()
    assert message in err
    assert (out, len(err.splitlines())) == ("", 1)
    assert not (tmp_path / "target").exists()
    assert hub.repositories == {}


def test_a_token_that_may_only_read(hub: FakeHub) -> None:
    require_login("user/tiny")
    hub.role = "read"
    with pytest.raises(UploadError, match="the token may only read"):
        require_login("user/tiny")


def test_interrupting_keeps_the_directory(hub: FakeHub, converted: Path, tmp_path: Path) -> None:
    hub.unanswered = "PUT /storage"
    settings = {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(
        [sys.executable, "-m", "mlx_rerank", "upload", str(converted), "user/tiny"],
        env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not any(request.startswith("PUT") for request in hub.asked) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert (converted / "model.safetensors").is_file()
    assert hub.repositories["user/tiny"].commits == []


def test_a_card_keeps_what_was_written_into_it(converted: Path) -> None:
    card = '---\n# by hand\nlicense: mit\n---\n\n# old\n\nReranker("old") or Reranker("mini")\n\n# Limits\n---\n'
    expected = card.replace("# old", "# user/new").replace('"old"', '"user/new"')
    assert renamed(card, "user/new") == expected
    (converted / "README.md").unlink()
    written = contents(converted, "user/new")["README.md"]
    assert isinstance(written, bytes)
    assert b"# user/new\n" in written


def test_a_card_is_renamed_where_its_headline_is() -> None:
    assert renamed("# Old\n\ntext\n\n---\n\n# Next\n", "you/new") == "# you/new\n\ntext\n\n---\n\n# Next\n"
    assert renamed("---\n# comment\n---\nno headline\n```\n# code\n```\n", "you/new").count("you/new") == 0


def test_a_card_made_anew_says_how_weights_are_packed(tiny: Path, tmp_path: Path) -> None:
    directory = convert(tiny, tmp_path / "packed", embeddings=Quantization(32, 4, "mxfp4"))
    (directory / "README.md").unlink()
    card = contents(directory, "user/tiny")["README.md"]
    assert isinstance(card, bytes)
    assert "| float16; word embeddings packed to 4 bits in groups of 32 (mxfp4) |" in card.decode()
