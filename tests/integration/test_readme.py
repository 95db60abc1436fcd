"""The README: its code runs as it stands on the embedded model, and its links, addresses and pictures are right.

A block that is not run says why in a comment before it.
"""

import importlib
import json
import re
import shlex
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from commands import run_here
from pictures import ASKED, PICTURES, SIZE, THEMES, drawn, on_a_terminal
from PIL import Image
from records import RECORDS, SERVER

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^(?:<!-- not run: ([^\n]+) -->\n)?```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PYTHON = [code for _, language, code in BLOCKS if language == "python"]
DIFFS = [code for _, language, code in BLOCKS if language == "diff"]
SHELL = [
    line
    for why, language, code in BLOCKS
    if language == "sh" and not why
    for line in code.replace("\\\n", "").splitlines()
]
SCORE = r"\b\d\.\d{4}\b"


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 150


def test_all_blocks_are_found() -> None:
    assert 2 * len(BLOCKS) == TEXT.count("```")
    assert {language for _, language, _ in BLOCKS} == {"python", "diff", "sh"}
    assert [why for why, language, _ in BLOCKS if why and language != "sh"] == []
    assert (len(PYTHON), len(DIFFS), len(SHELL)) == (1, 3, 3)


def after(diff: str) -> str:
    """Return a program as it is after a change."""
    return "".join(line[1:] for line in diff.splitlines(keepends=True) if not line.startswith("-"))


@pytest.mark.parametrize("code", [*PYTHON, *map(after, DIFFS)], ids=lambda code: code.partition("\n")[0])
def test_a_program_runs(code: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    if SERVER in code:
        code = code.replace(SERVER, request.getfixturevalue("server").url)
    code = re.sub(r"BAAI/bge-reranker-[\w-]+", "mini", code)  # which cannot be had without the hub
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    with names.get("client", nullcontext()):  # so that it is closed
        assert capsys.readouterr().out


@pytest.mark.parametrize("line", SHELL, ids=lambda line: line[:40])
def test_a_command_runs(line: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command, *arguments = shlex.split(line, comments=True)
    if arguments == ["serve"]:
        assert request.getfixturevalue("server").url  # which was started so, but on a free port
    elif command == "mlx-rerank":
        assert len(run_here(*arguments).stdout.splitlines()) == 6
    else:
        program = shutil.which(command)
        if program is None:
            pytest.skip(f"{command} is not installed")
        url = request.getfixturevalue("server").url
        given = [program, "--silent", *(argument.replace(SERVER, url) for argument in arguments)]
        answer = subprocess.run(given, capture_output=True, text=True, check=True, timeout=60).stdout
        assert json.loads(answer)["results"][0]["index"] == 1


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)|(?:src|srcset)=\"([^\"]+)", TEXT)
    own = {link for pair in links for link in pair if link and not link.startswith("https://")}
    assert len(own) > 20
    assert sorted(link for link in own if not (ROOT / link).exists()) == []


def test_addresses_are_the_ones_that_programs_ask() -> None:
    rows = re.findall(r"^\| \[([^]]+)\]\(docs/how-to/apps/[\w-]+\.md\) \| (.+) \| `(.+)` \|$", TEXT, re.MULTILINE)
    settings = {(one["program"], name): SERVER + path for one in RECORDS for name, path in one["settings"].items()}
    assert len(rows) == 8
    assert {(app, name): value for app, name, value in rows}.items() <= settings.items()


@pytest.fixture(scope="module")
def terminal() -> str:
    return on_a_terminal(*ASKED)


@pytest.mark.parametrize("name", THEMES)
def test_the_terminal_is_as_pictured(terminal: str, name: str) -> None:
    """Else look at what `python tests/support/pictures.py` makes of it."""
    made, kept = drawn(terminal, THEMES[name]), (PICTURES / f"rank-{name}.svg").read_text(encoding="utf-8")
    scores = [[float(score) for score in re.findall(SCORE, picture)] for picture in (made, kept)]
    assert scores[0] == pytest.approx(scores[1], abs=2e-4)
    assert re.sub(SCORE, "", made) == re.sub(SCORE, "", kept)
    assert "http" not in re.sub(r"xmlns=\"\S+\"|<!--.*?-->", "", kept)  # a picture that fetches nothing


@pytest.mark.parametrize("name", THEMES)
def test_the_page_is_pictured(name: str) -> None:
    path = PICTURES / f"page-{name}.png"
    with Image.open(path) as picture:
        assert picture.size == (SIZE["width"], SIZE["height"])
    assert path.stat().st_size < 80_000


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("mlx_rerank", ["Reranker", "FlagReranker", "CrossEncoder", "Windows", "RankedDocument", "ScoredPair"]),
        ("mlx_rerank", ["Explanation", "Highlight", "__version__"]),
        ("mlx_rerank.errors", ["RerankError", "InputError", "CheckpointError", "DeadlineError"]),
        ("mlx_rerank.dtypes", ["assert_one_dtype", "audit", "report"]),
        ("mlx_rerank.train", ["train", "TrainingOptions", "Example", "read_examples"]),
        ("mlx_rerank.convert", ["convert"]),
        ("mlx_rerank.cli", ["main"]),
        ("mlx_rerank.integrations.langchain", ["MLXRerank", "MLXCrossEncoder"]),
        ("mlx_rerank.integrations.haystack", ["MLXRanker"]),
    ],
)
def test_public_paths_stay(module: str, names: list[str]) -> None:
    found = importlib.import_module(module)
    for name in names:
        assert getattr(found, name)
