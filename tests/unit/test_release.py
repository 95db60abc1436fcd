"""What a release says of its public address, and what continuous integration runs."""

import ast
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from copy import deepcopy
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

from mlx_rerank.version import __version__

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
ADDRESS = "https://host.example/owner/mlx-rerank"
LINKS = re.compile(r'\]\(([^)\s]+)|\b(?:src|srcset|href)="([^"\s]+)')
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
STEPS = [
    step
    for path in WORKFLOWS
    for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values()
    for step in job.get("steps", [])
]


def script(name: str) -> Any:
    """Return a module of the folder packaging."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "packaging" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def project(address: str) -> Any:
    """Return the project's metadata if this were its address."""
    config = deepcopy(ProjectMetadata(str(ROOT), PluginManager()).config)
    config["tool"]["hatch"]["metadata"]["hooks"]["custom"]["address"] = address
    return ProjectMetadata(str(ROOT), PluginManager(), config).core


def links(text: str) -> set[str]:
    """Return the targets of links in Markdown outside its blocks of code."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {"".join(found) for found in LINKS.findall(prose)}


def test_without_an_address_nothing_is_made_up() -> None:
    made = project("")
    assert (made.readme, made.urls) == (README, {})


def test_every_link_follows_from_the_address() -> None:
    made = project(ADDRESS + "/")
    assert {url.removeprefix(ADDRESS).partition("/")[0] for url in made.urls.values()} == {""}
    assert {link for link in links(made.readme) if not re.match(r"https?://|#", link)} == set()
    assert f"{ADDRESS}/blob/v{__version__}/" in made.readme


def test_links_of_each_kind(tmp_path: Path) -> None:
    for name in ("a.md", "b/c.svg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    text = '[a](a.md#x) [b](b) ![c](b/c.svg) <img src="b/c.svg"> [d](https://d/a.md) [e](#a.md) f[0](none)'
    for rule in script("address").substitutions(text, tmp_path, "https://h"):
        text = re.sub(rule["pattern"], rule["replacement"].replace("$HFPR_VERSION", "1"), text)
    assert text == (
        "[a](https://h/blob/v1/a.md#x) [b](https://h/tree/v1/b) ![c](https://h/raw/v1/b/c.svg) "
        '<img src="https://h/raw/v1/b/c.svg"> [d](https://d/a.md) [e](#a.md) f[0](none)'
    )


def test_the_sdist_has_what_the_readme_links_to() -> None:
    """A wheel is built from it, and a link to what it has not would stay as it is."""
    config = ProjectMetadata(str(ROOT), PluginManager()).config
    packed = [*config["tool"]["hatch"]["build"]["targets"]["sdist"]["include"], "LICENSE"]
    own = {link.partition("#")[0] for link in links(README) if not re.match(r"https?://|#", link)}
    assert {link for link in own if link.partition("/")[0] not in packed} == set()


@pytest.fixture
def sdist(tmp_path: Path) -> Path:
    """An sdist that has metadata alone."""
    said = f"Name: mlx-rerank\nVersion: 1.2.3\nSummary: It ranks: well\nProject-URL: Homepage, {ADDRESS}\n"
    path = tmp_path / "mlx_rerank-1.2.3.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("mlx_rerank-1.2.3/PKG-INFO")
        entry.size = len(said)
        archive.addfile(entry, io.BytesIO(said.encode()))
    return path


@pytest.mark.skipif(not (shutil.which("ruby") and shutil.which("curl")), reason="needs Ruby and curl")
def test_the_formula_passes_its_own_test(sdist: Path) -> None:
    script("formula").main(sdist)
    formula = sdist.with_name("mlx-rerank.rb")
    assert f'url "{ADDRESS}/releases/download/v1.2.3/{sdist.name}"' in formula.read_text()
    assert not re.search(r"@[A-Z]", formula.read_text())
    command = ["ruby", str(ROOT / "tests" / "support" / "homebrew.rb"), str(formula), str(Path(sys.executable).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert not done.returncode, done.stderr
    assert done.stdout.startswith("run bin/mlx-rerank serve")


def test_jobs_run_what_make_runs_here() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    ran = [step["run"] for step in STEPS if "run" in step]
    asked = [re.fullmatch(r"(?:sudo )?make ((?:[a-z-]+ ?)+)(?: ?[A-Z]+=\"\$[A-Z_]+\")?", line) for line in ran]
    assert ran
    assert all(asked)
    assert {word for line in asked if line for word in line[1].split()} <= set(targets)


def test_actions_are_pinned() -> None:
    used = [
        line
        for path in WORKFLOWS
        for line in path.read_text("utf-8").splitlines()
        if "uses: " in line and "./" not in line
    ]
    assert used
    assert all(re.search(r"uses: [\w./-]+@[0-9a-f]{40} # v[\d.]+$", line) for line in used)


def test_a_process_of_the_tests_can_be_kept_on_the_cpu(tmp_path: Path) -> None:
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / "core.py").write_text("cpu, set_default_device = 'cpu', print")
    paths = os.pathsep.join((str(ROOT / "tests" / "support" / "cpu"), str(tmp_path)))
    for path, told in ((paths, "cpu\n"), (str(tmp_path), "")):
        command = [sys.executable, "-c", ""]
        assert subprocess.check_output(command, env={**os.environ, "PYTHONPATH": path}, text=True) == told


def test_a_release_needs_a_tag_that_is_the_version() -> None:
    for tag, fits in ((f"v{__version__}", True), (__version__, False), ("v9.9.9", False), ("", False)):
        done = subprocess.run(["make", "-s", "tagged", f"TAG={tag}"], cwd=ROOT, capture_output=True, check=False)
        assert (done.returncode == 0) is fits, tag


def test_the_changelog_begins_with_the_version() -> None:
    heads = re.findall(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert heads[0] == __version__


def test_what_the_package_imports_is_declared() -> None:
    """Whatever else brings it today may not tomorrow."""
    made, distributions = project(""), packages_distributions()
    declared = [*made.dependencies, *(line for lines in made.optional_dependencies.values() for line in lines)]
    names = {re.split(r"[^\w.-]", line)[0].lower() for line in declared}
    trees = [ast.parse(path.read_text("utf-8")) for path in (ROOT / "mlx_rerank").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    modules = {name.partition(".")[0] for name in found} - sys.stdlib_module_names - {"mlx_rerank"}
    brought = {module: {each.lower().replace("_", "-") for each in distributions.get(module, [])} for module in modules}
    lacking = {module for module in modules if names.isdisjoint(brought[module])}
    assert lacking == {"FlagEmbedding", "sentence_transformers", "typing_extensions"}  # compared with; for types alone
