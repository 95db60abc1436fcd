"""The documentation: its code runs, its links lead somewhere, and what is made from the code is as the code says."""

import re
from itertools import groupby
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import reference_pages
import typer
from doc_blocks import DOCS, PAGES, ROOT, Block, blocks, commands, named, run_python, run_shell, write_files
from servers import Server

from mlx_rerank import Reranker, cli
from mlx_rerank.checkpoints.checkpoint import Checkpoint

BLOCKS = list(blocks())
RUN = [block for block in BLOCKS if block.language in ("python", "sh") and not block.mark]
PAGE = {name: list(found) for name, found in groupby(RUN, lambda block: block.page)}


def test_all_blocks_are_found_and_every_language_is_known() -> None:
    fences = sum(page.read_text(encoding="utf-8").count("\n```") for page in PAGES)
    assert 2 * len(BLOCKS) == fences
    assert {block.language for block in BLOCKS} <= {"", "console", "python", "sh", "yaml"}
    assert len(RUN) >= 50
    assert {block.language for block in BLOCKS if block.mark == "not run"} == {"sh"}  # all Python runs


@pytest.mark.parametrize("name", PAGE)
def test_the_blocks_of_a_page_run(
    name: str, mini: Reranker, server: Server, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    documents = ["hi", "The giant panda is a bear native to China.", "rain"]
    given: dict[str, Any] = {"query": "what is a panda?", "documents": documents, "reranker": mini}
    given |= {"pairs": [(given["query"], text) for text in documents], "Reranker": Reranker, "mx": mx}
    for block in PAGE[name]:
        if "input_ids" in block.code:
            model = Checkpoint.open("mini").load(mx.float16, keep_quantized=False, evaluate=False)
            given |= {"model": model, "input_ids": mx.zeros((2, 16), mx.int32), "mask": mx.ones((2, 16), mx.bool_)}
        if block.language == "python":
            run_python(block, given, tiny)
        else:
            run_shell(block, server.url)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.mark == "quoted"], ids=lambda block: block.line)
def test_what_is_quoted_is_in_the_file(block: Block) -> None:
    assert block.code in (ROOT / block.reason).read_text(encoding="utf-8")


def test_commands_and_their_options_exist_in_blocks_prose_and_forms() -> None:
    known = _options(typer.main.get_command(cli.app))
    shell = [(f"{block.page}:{block.line}", block) for block in BLOCKS if block.language == "sh"]
    found = [(place, words) for place, block in shell for words in commands(block.code)]
    told = list(named())
    assert len(found) >= 40
    assert len(told) >= 40
    assert {place for place, _ in told} >= {".github/ISSUE_TEMPLATE/mac_result.yml", "README.md", "SECURITY.md"}
    for place, words in found + told:
        name = " ".join(words[:2]) if words[0] == "bench" else words[0]
        options = known["" if name.startswith("-") else name]
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= options, f"{place}: {name}"


def _options(command: Any, name: str = "") -> dict[str, set[str]]:
    """Return the options of a command and of those below it, by their names."""
    known = {name: {option for parameter in command.params for option in parameter.opts} | {"--help"}}
    for below in getattr(command, "commands", {}).values():
        known |= _options(below, f"{name} {below.name}".strip())
    return known


@pytest.mark.parametrize(
    ("page", "part"), [pytest.param(*one, id=one[0].stem) for one in reference_pages.pages().items()]
)
def test_what_is_made_from_the_code_is_up_to_date(page: Path, part: str) -> None:
    """Else run `python tests/support/reference_pages.py`."""
    assert page.read_text(encoding="utf-8") == reference_pages.renewed(page, part)


def test_links_lead_to_pages_and_headings() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
            other = (page.parent / target) if target else page
            assert other.is_file(), f"{page.relative_to(DOCS)}: {target}"
            assert DOCS in other.resolve().parents, f"{page.relative_to(DOCS)}: {target} is not part of the site"
            assert not anchor or anchor in _anchors(other), f"{page.relative_to(DOCS)}: {target}#{anchor}"


def test_files_that_pages_include_have_no_links_of_their_own() -> None:
    """Which would lead elsewhere from the page than from the file."""
    included = [
        name for page in PAGES for name in re.findall(r'^--8<-- "(.+)"$', page.read_text("utf-8"), re.MULTILINE)
    ]
    assert sorted(included) == ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
    for name in included:
        assert re.findall(r"\]\((?!https?:).+?\)", (ROOT / name).read_text("utf-8")) == [], name


def _anchors(page: Path) -> set[str]:
    """Return the names under which a page's headings are linked to."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_menu() -> None:
    listed = re.findall(r'"([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert sorted(listed) == [str(page.relative_to(DOCS)) for page in PAGES]


def test_every_variable_of_the_environment_is_explained() -> None:
    page = (DOCS / "reference" / "environment.md").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mlx_rerank").rglob("*.py"))
    assert set(re.findall(r"MLX_RERANK_[A-Z_]+", code)) <= set(re.findall(r"`(\w+)`", page))
