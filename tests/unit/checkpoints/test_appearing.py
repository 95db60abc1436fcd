"""Directories that appear whole: what a killed process left is removed, and nothing that another still writes."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_rerank.checkpoints import appearing as module
from mlx_rerank.checkpoints.appearing import appearing
from mlx_rerank.errors import OutputError


@pytest.fixture
def abandoned(tmp_path: Path) -> Path:
    """What a process leaves that is killed while it writes."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from mlx_rerank.checkpoints.appearing import appearing\n"
        "with appearing(Path(sys.argv[1])) as directory:\n"
        "    (directory / 'weights').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "killed")], check=False, timeout=60)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".killed-")
    return left


def write(target: Path) -> None:
    with appearing(target) as directory:
        (directory / "weights").write_text("whole")


@pytest.mark.parametrize("name", ["killed", "other"])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, abandoned: Path, name: str) -> None:
    write(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == [name, "weights"]
    assert not abandoned.exists()


def test_what_is_being_written_stays(tmp_path: Path) -> None:
    with appearing(tmp_path / "slow") as slow:
        (slow / "weights").write_text("half")
        write(tmp_path / "quick")
        assert (slow / "weights").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quick", "slow"]


def test_what_another_machine_left_stays(tmp_path: Path, abandoned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.socket, "gethostname", lambda: "elsewhere")
    write(tmp_path / "model")
    assert (abandoned / "weights").exists()


def test_what_only_looks_like_it_stays(tmp_path: Path) -> None:
    for name in (".model-01234567", ".cache-abcdefgh"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").touch()
    (tmp_path / ".cache-abcdefgh" / ".writing").touch()  # not ours, or not locked yet
    write(tmp_path / "model")
    assert len(list(tmp_path.rglob("precious"))) == 2


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with appearing(tmp_path / "slow") as slow:
        write(tmp_path / "quick")
        assert slow.exists()
    assert (tmp_path / "slow").is_dir()


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), appearing(tmp_path / "model"):
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []
