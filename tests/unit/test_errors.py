"""What is printed: whatever a stranger's file holds, it stays text on one line."""

import json
import logging
import pickle
from pathlib import Path

import pytest
from checkpoints import TINY, write_checkpoint
from commands import run_here

from mlx_rerank import errors
from mlx_rerank.convert import convert
from mlx_rerank.errors import CheckpointError, RefusedError, RerankError, StoppedError, printable

EVIL = "a\x1b]52;c;aGk=\x07\x9b2J\u202e\u2028\x7f\nERROR forged"
SHOWN = r"a\x1b]52;c;aGk=\x07\x9b2J\u202e\u2028\x7f\nERROR forged"
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RerankError)]


def test_what_a_terminal_would_act_on_is_escaped() -> None:
    assert printable(EVIL) == SHOWN == printable(SHOWN)
    plain = "Zürich, 竹子, 🐼, a\\b"
    assert printable(plain) == plain
    assert printable(7) == "7"
    assert printable("half \ud800") == r"half \ud800"  # no encoding takes it


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_error_can_be_printed_raw(kind: type[RerankError]) -> None:
    error = kind.__new__(kind, EVIL)
    error.args = (EVIL,)
    assert str(error) == SHOWN


def test_a_message_has_an_end() -> None:
    assert len(str(CheckpointError("x" * 10**6))) < 5000


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_travels_between_processes(kind: type[RerankError]) -> None:
    if kind is RefusedError:
        error = RefusedError(429, "busy", EVIL, param="model", retry_after=3)
    else:
        error = kind(EVIL, *([1], [2.0], [3], [(4, 5)]) * issubclass(kind, StoppedError))
    error.__notes__ = ["a note"]  # pyright: ignore[reportAttributeAccessIssue]
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), str(found), found.args, vars(found)) == (kind, SHOWN, error.args, vars(error))


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted directory whose record holds what a terminal would act on."""
    root = tmp_path_factory.mktemp("evil")
    target = convert(write_checkpoint(root / "source"), root / "target")
    path = target / "config.json"
    config = json.loads(path.read_text())
    config["mlx_rerank"] |= {"source": EVIL, "revision": EVIL, "version": EVIL}
    path.write_text(json.dumps(config | {"torch_dtype": EVIL, "dtype": EVIL, "quantization": {EVIL: EVIL}}))
    return target


@pytest.mark.parametrize("arguments", [["info"], ["info", "--json"], ["audit", "--json"], ["upload", "--dry-run"]])
def test_the_command_line_prints_no_record_raw(evil: Path, arguments: list[str]) -> None:
    command, *options = arguments
    found = run_here(command, str(evil), *(["user/name"] if command == "upload" else []), *options)
    lines = (found.stdout + found.stderr).splitlines()
    assert lines
    assert all(line.isprintable() for line in lines)
    if options == ["--json"] and command == "info":
        assert json.loads(found.stdout)["source"] == EVIL


def test_the_command_line_prints_no_error_raw(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "model", TINY | {"hidden_act": EVIL, "architectures": EVIL})
    found = run_here("info", str(directory), code=1)
    assert found.stderr.rstrip("\n").isprintable()
    assert r"\x1b]52" in found.stderr


def test_no_line_of_the_servers_log_is_forged() -> None:
    from mlx_rerank.server.logs import _TextFormatter

    formatter = _TextFormatter("{levelname} {message}", style="{")
    record = logging.makeLogRecord({"msg": "not loaded %s", "args": (EVIL,), "reason": EVIL, "levelname": "ERROR"})
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    first, *rest = formatter.format(record).split("\n")
    assert first == f"ERROR not loaded {SHOWN} reason={SHOWN}"
    assert rest
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
