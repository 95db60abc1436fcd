"""The service of macOS: installed, asked after and removed, with launchd's command recorded instead of run."""

import plistlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from commands import run_here

from mlx_rerank.errors import InputError, OutputError
from mlx_rerank.server import service

LASTING = "/opt/mlx-rerank/bin/python"
PRINTED = """gui/501/io.github.mlx-rerank = {{
	state = {state}
{process}	last exit code = {code}
	resource coalition = {{
		state = active
	}}
}}
"""


class Launchd:
    """What the command would answer: it knows one service, which may take a while to end.

    Args:
        refuses: "bootstrap" if it takes no service.
        lingers: how often it is asked before an ended service is forgotten.
    """

    def __init__(self, *, refuses: str = "", lingers: int = 0) -> None:
        """Start without a service."""
        self.loaded, self.ending, self.refuses, self.lingers = False, False, refuses, lingers
        self.process, self.code, self.asked = "\tpid = 4242\n", "(never exited)", list[list[str]]()

    def __call__(self, command: list[str], **_: object) -> CompletedProcess[str]:
        assert command[0] == "launchctl"
        self.asked.append(command[1:])
        word, domain = command[1], command[2]
        assert domain.startswith("gui/")
        if word == "bootstrap" and self.refuses:
            return CompletedProcess(command, 5, "", "Bootstrap failed: 5: Input/output error\n")
        if word == "bootstrap":
            assert not self.loaded, "launchd takes no second one"
            self.loaded = plistlib.loads(Path(command[3]).read_bytes())["Label"] == service.LABEL
            return CompletedProcess(command, 0, "", "")
        known = self.loaded
        if word == "bootout":
            self.ending = True
        elif self.ending:
            self.loaded = self.lingers > 0
            self.ending, self.lingers, known = self.loaded, self.lingers - 1, self.loaded
        text = PRINTED.format(state="running", process=self.process, code=self.code) if word == "print" else ""
        return CompletedProcess(command, 0 if known else 113, text if known else "", "" if known else "Not found\n")


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Launchd]:
    """A Mac with an empty home; its launchd is made by what is returned."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(sys, "executable", LASTING)
    monkeypatch.setattr(service.time, "sleep", lambda _: None)

    def make(**options: Any) -> Launchd:
        launchd = Launchd(**options)
        monkeypatch.setattr(subprocess, "run", launchd)
        return launchd

    return make


def files(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file()]


def serve(monkeypatch: pytest.MonkeyPatch, *options: str, code: int = 0) -> tuple[str, str]:
    """Run the command as it was typed; what it says on standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["mlx-rerank", "serve", *options])
    done = run_here("serve", *options, code=code)
    return done.stdout, done.stderr


def test_the_whole_way(mac: Callable[..., Launchd], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launchd = mac()
    assert serve(monkeypatch, "--service-status", code=1)[0] == "the service is not installed\n"
    serve(monkeypatch, "--model", "mini", "--install-service", "--port", "9000")
    described = plistlib.loads(service.description_file().read_bytes())
    command = [LASTING, "-m", "mlx_rerank", "serve", "--model", "mini", "--port", "9000"]
    assert described["ProgramArguments"] == command
    said, warned = serve(monkeypatch, "--service-status")
    assert said.splitlines() == [
        "the service runs as process 4242",
        f"file            {service.description_file()}",
        f"command         {' '.join(command)}",
        f"log             {service.log_file()}",
    ]
    assert f"{LASTING} is gone" in warned
    service.log_file().parent.mkdir()
    service.log_file().write_text("what launchd wrote")
    assert str(service.log_file()) in serve(monkeypatch, "--uninstall-service")[1]
    assert not launchd.loaded
    assert files(tmp_path) == []
    assert serve(monkeypatch, "--uninstall-service")[1] == "there was no service\n"


def test_a_service_that_fails_is_told(mac: Callable[..., Launchd], monkeypatch: pytest.MonkeyPatch) -> None:
    launchd = mac()
    service.install([])
    launchd.process, launchd.code = "", "78: EX_CONFIG"
    said = serve(monkeypatch, "--service-status", code=1)[0]
    assert said.startswith("the service does not run\nlast exit code  78: EX_CONFIG\n")
    launchd.loaded = False
    assert serve(monkeypatch, "--service-status", code=1)[0].startswith("the service is not loaded\n")
    service.description_file().write_text("not what it was")
    assert "install the service again" in serve(monkeypatch, "--service-status", code=1)[1]


def test_a_service_that_ends_slowly_is_waited_for(mac: Callable[..., Launchd]) -> None:
    launchd = mac(lingers=3)
    service.install([])
    service.install(["--port", "9"])  # which launchd would not take beside the older one
    launchd.lingers = 3
    service.uninstall()
    assert not launchd.loaded


def test_a_service_that_does_not_end_keeps_its_file(
    mac: Callable[..., Launchd], monkeypatch: pytest.MonkeyPatch
) -> None:
    launchd = mac()
    service.install([])
    launchd.lingers = 10**9
    monkeypatch.setattr(service.time, "monotonic", iter(range(0, 1000, 10)).__next__)
    with pytest.raises(OutputError, match="still runs after 30 s"):
        service.uninstall()
    assert service.description_file().exists()


def test_a_service_that_is_not_taken(mac: Callable[..., Launchd]) -> None:
    mac(refuses="bootstrap")
    with pytest.raises(OutputError, match=r"did not take .*Input/output error"):
        service.install([])
    service.uninstall()
    assert not service.description_file().exists()


def test_one_at_a_time(mac: Callable[..., Launchd], monkeypatch: pytest.MonkeyPatch) -> None:
    launchd = mac()
    assert "give one of them" in serve(monkeypatch, "--install-service", "--uninstall-service", code=1)[1]
    assert launchd.asked == []


@pytest.mark.parametrize("option", ["--uninstall-service", "--service-status"])
def test_elsewhere_there_is_no_launchd(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert f"{option} is about macOS's launchd" in serve(monkeypatch, option, code=1)[1]


def test_elsewhere_the_service_is_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "executable", LASTING)
    monkeypatch.chdir(tmp_path)
    printed = plistlib.loads(serve(monkeypatch, "--install-service", "--port", "9000")[0].encode())
    assert printed["ProgramArguments"] == [LASTING, "-m", "mlx_rerank", "serve", "--port", "9000"]
    assert printed["WorkingDirectory"] == str(tmp_path)
    monkeypatch.setenv("MLX_RERANK_API_KEY", "sesame")
    assert "write the key to a file, for --api-key-file" in serve(monkeypatch, "--install-service", code=1)[1]


@pytest.mark.parametrize(
    "python",
    [
        "/Users/a/.cache/uv/archive-v0/iXq/bin/python",
        "/Users/a/.local/pipx/.cache/0d3/bin/python",
        "/Users/a/Library/Caches/pipx/0d3/bin/python3.12",
        "/private/var/folders/x1/T/tmp8/venv/bin/python",
        "/tmp/venv/bin/python",
        f"{tempfile.gettempdir()}/venv/bin/python",
        "/Volumes/fast/uv/archive-v0/iXq/bin/python",
        "/Volumes/xdg/uv/archive-v0/iXq/bin/python",
    ],
)
def test_no_service_of_a_python_that_is_cleaned_away(
    python: str, mac: Callable[..., Launchd], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    launchd = mac()
    monkeypatch.setenv("UV_CACHE_DIR", "/Volumes/fast/uv")
    monkeypatch.setenv("XDG_CACHE_HOME", "/Volumes/xdg")
    monkeypatch.setattr(sys, "executable", python)
    said = serve(monkeypatch, "--install-service", code=1)[1]
    assert python in said
    assert "uv tool install" in said
    assert (launchd.asked, files(tmp_path)) == ([], [])


def test_a_cache_is_known_by_its_mark_wherever_it_is(
    mac: Callable[..., Launchd], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And an environment that is marked itself, as uv marks all that it makes, is none."""
    mac()
    monkeypatch.setattr(service, "_passing", set)  # where these tests run
    environment = tmp_path / "cache" / "archive" / "x"
    (environment / "bin").mkdir(parents=True)
    (environment / service._CACHE_MARK).touch()
    monkeypatch.setattr(sys, "executable", str(environment / "bin" / "python"))
    service.property_list([])
    (tmp_path / "link").symlink_to(environment)
    (tmp_path / "cache" / service._CACHE_MARK).touch()
    for python in (environment / "bin" / "python", tmp_path / "link" / "bin" / "python"):
        monkeypatch.setattr(sys, "executable", str(python))
        with pytest.raises(InputError, match="uv tool install"):
            service.property_list([])


def test_the_python_beneath_an_environment_may_be_anywhere(
    mac: Callable[..., Launchd], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The link in it is what is run."""
    mac()
    monkeypatch.setattr(service, "_passing", set)
    (tmp_path / "tools" / "bin").mkdir(parents=True)
    (tmp_path / "Caches").mkdir()
    (tmp_path / "Caches" / "python").touch()
    python = tmp_path / "tools" / "bin" / "python"
    python.symlink_to(tmp_path / "Caches" / "python")
    monkeypatch.setattr(sys, "executable", str(python))
    assert plistlib.loads(service.property_list([]))["ProgramArguments"][0] == str(python)
