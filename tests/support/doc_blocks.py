"""Blocks of code in the documentation, run as its reader runs them, but with models that are at hand.

A block that is not run says why in a comment before it, `<!-- not run: ... -->`. One that quotes a file names it,
`<!-- quoted: ... -->`.
"""

import asyncio
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import run_here
from records import SERVER

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
_BLOCK = re.compile(r"^(?:<!-- (not run|quoted): ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OF_THE_HUB = re.compile(r"BAAI/bge-reranker-[\w-]+")
_BASH = f"""set -e -o pipefail
mlx-rerank() {{ {shlex.quote(sys.executable)} -m mlx_rerank "$@"; }}
curl() {{ command curl --fail --show-error "$@"; echo; }}
"""
_ROW = {"query": "what is a panda?", "pos": ["The panda is a bear."], "neg": ["Rain.", "Tea."]}


@dataclass(frozen=True)
class Block:
    """A block of code.

    Args:
        page: that it is on.
        line: of the page on which its code begins.
        language: it says that it is in.
        mark: "not run", "quoted", or nothing.
        reason: why it is not run; or the file that it quotes.
        code: its text.
    """

    page: str
    line: int
    language: str
    mark: str
    reason: str
    code: str


def blocks() -> Iterator[Block]:
    """Yield all blocks of all pages."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in _BLOCK.finditer(text):
            line = text.count("\n", 0, found.start(4)) + 1
            yield Block(str(page.relative_to(DOCS)), line, found[3], found[1] or "", found[2] or "", found[4])


def write_files(directory: Path) -> None:
    """Write the files that blocks read."""
    rows = "".join(json.dumps(_ROW | {"id": number}) + "\n" for number in range(2))
    for name in ("pairs.jsonl", "dev.jsonl"):
        (directory / name).write_text(rows)
    passages = [{"id": number, "text": text} for number, text in enumerate((*_ROW["pos"], *_ROW["neg"]))]
    (directory / "passages.jsonl").write_text("".join(json.dumps(passage) + "\n" for passage in passages))
    (directory / "pairs.tsv").write_text("what is a panda?\tThe panda is a bear.\nwhat is a panda?\tRain.\n")
    (directory / "document.txt").write_text("The giant panda is a bear native to China.")
    (directory / "docs").mkdir()
    (directory / "docs" / "login.txt").write_text('Forgot your password? Choose "Reset" on the login page.')


def run_python(block: Block, given: dict[str, Any], tiny: Path) -> None:
    """Run a block of Python with names that it may use; it may await.

    Args:
        block: to run.
        given: names, which the block does not change for others.
        tiny: a checkpoint for what takes long, or cannot be done, with the embedded model.
    """
    code = _OF_THE_HUB.sub(str(tiny) if re.search(r"\b(convert|train)\(", block.code) else "mini", block.code)
    names = dict(given)
    body = "\n".join("    " + line for line in code.splitlines())
    globally = f"    global {', '.join(given)}\n"  # a block may assign to one of them
    exec(compile(f"async def program():\n{globally}{body}\n", f"{block.page}:{block.line}", "exec"), names)
    asyncio.run(names["program"]())


def run_shell(block: Block, url: str) -> None:
    """Run a block of commands: those of this package in this process, where that does, and all else in bash.

    Args:
        block: to run.
        url: of a server, in place of the usual address.
    """
    code = _OF_THE_HUB.sub("mini", block.code)
    lines = [line for line in code.splitlines() if line.strip()]
    if all(re.fullmatch(r"mlx-rerank [^|<>;&]*", line.partition(" #")[0]) for line in lines):
        for line in lines:
            run_here(*shlex.split(line, comments=True)[1:])
        return
    script = _BASH + code.replace(SERVER, url)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{block.page}:{block.line}: {done.stdout}{done.stderr}"


def commands(code: str) -> Iterator[list[str]]:
    """Yield the words of each command of this package in code, whether or not it is run."""
    for line in code.replace("\\\n", " ").splitlines():
        for command in re.findall(r"(?<![\w/-])mlx-rerank +([a-z-][^|<>;&]*)", line.partition("#")[0]):
            yield shlex.split(command)


def named() -> Iterator[tuple[str, list[str]]]:
    """Yield the commands that prose and forms name, and those of blocks that are indented: file, and words."""
    for path in (*PAGES, *sorted(ROOT.glob("*.md")), *sorted((ROOT / ".github").rglob("*.*"))):
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"`(mlx-rerank\s[^`]+)`|^(?: {4}|\s+value: )(mlx-rerank .+)", text, re.MULTILINE)
        for code in ("".join(one) for one in found):
            yield from ((str(path.relative_to(ROOT)), words) for words in commands(" ".join(code.split())))
