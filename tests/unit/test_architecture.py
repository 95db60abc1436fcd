"""The rows of the code, what may be imported when, and who may name what."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mlx_rerank

ROOT = Path(mlx_rerank.__file__).parent
ROWS = (  # a file imports only from rows above its own; packages of one row never import one another
    ("errors", "version"),
    ("pairs", "device"),
    ("models", "dtypes"),
    ("checkpoints",),
    ("scoring", "convert"),
    ("compat", "integrations", "bulk", "server", "train", "proof"),
    ("bench",),
    ("cli",),
    ("__main__",),
)
ROW = {name: row for row, names in enumerate(ROWS) for name in names}
MODULES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    """Return the module or package, directly below mlx_rerank, that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Return the dotted names that a file imports, whether at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_rows_above_its_own(path: Path) -> None:
    if path == ROOT / "__init__.py":
        return
    own = room(path)
    assert own in ROW, f"{own} has no row: give it one here and in CONTRIBUTING.md"
    assert not misplaced(own, imports_of(path))


def test_an_import_that_climbs_is_noticed() -> None:
    """What the test above would say of a file in a lower row that imports from a higher one, or from its own row."""
    assert misplaced("device", {"mlx_rerank.scoring.engine", "numpy", "mlx_rerank.errors"}) == ["scoring"]
    assert misplaced("scoring", {"mlx_rerank.convert.conversion"}) == ["convert"]


def misplaced(own: str, names: set[str]) -> list[str]:
    """Return the packages that a file of `own` imports from, and may not."""
    found = []
    for name in names:
        parts = name.split(".")
        if parts[0] == "mlx_rerank" and len(parts) > 1 and parts[1] in ROW and parts[1] != own:
            found += [parts[1]] if ROW[parts[1]] >= ROW[own] else []
    return found


OF_A_FAMILY = re.compile(  # a family's name, tensors of its checkpoints, its special tokens, and how many a pair has
    r"roberta|\bbert\b|layernorm\.(weight|bias)|</?s>|<(pad|unk|mask)>|(?-i:\[(CLS|SEP|PAD|MASK|UNK)\])"
    r"|special_tokens?\w*\s*[-=<>]=?\s*\d",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_families_name_what_is_theirs(path: Path) -> None:
    if path != ROOT / "models" / "__init__.py" and path.parent.parent != ROOT / "models":
        assert not OF_A_FAMILY.search(path.read_text())


@pytest.mark.parametrize(
    "line",
    [
        'x = "roberta.embeddings"',
        "name == 'encoder.LayerNorm.weight'",
        'start = tokenizer.token_to_id("<s>")',
        "room = max_length - SPECIAL_TOKENS_PER_PAIR = 4",
        "SPECIAL_TOKENS = 4",
        "# as BERT does",
    ],
)
def test_a_name_of_a_family_is_noticed(line: str) -> None:
    assert OF_A_FAMILY.search(line)


def test_the_root_of_the_package_holds_nothing_else() -> None:
    files = {path.name for path in ROOT.iterdir() if path.is_file()}
    assert files == {"__init__.py", "__main__.py", "errors.py", "version.py", "py.typed"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= 300
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = bool(ast.get_docstring(node))
            body = node.body[1:] if documented else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= 40, f"{node.name} has {lines} lines"


EXTRAS = {
    "torch",
    "scipy",
    "bm25s",
    "onnx",
    "onnxscript",
    "psutil",
}  # frameworks are wrapped where they are inherited from


def test_only_one_file_imports_what_an_extra_brings() -> None:
    for path in MODULES:
        if path != ROOT / "device" / "optional.py":
            assert not {name for name in imports_of(path) if name.split(".")[0] in EXTRAS}, path


def test_only_one_file_reads_a_tokenizer() -> None:
    """What the library does with a stranger's file becomes an error of this package there."""
    for path in MODULES:
        if path != ROOT / "pairs" / "tokenizing.py":
            assert not re.search(r"(?<!\w)Tokenizer\.from_", path.read_text()), path


def test_every_batch_goes_to_its_model_through_one_file() -> None:
    """It checks the ids: a gather past the end of a table reads foreign memory."""
    assert [path.name for path in MODULES if "._asdict()" in path.read_text()] == ["mapped.py"]


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, mlx_rerank; print({'torch', 'transformers', 'mlx_lm', 'mlx', 'numpy', 'rich'} & set(sys.modules))"
    )
    assert run(code) == "set()"


def test_importing_every_name_needs_no_torch_transformers_or_mlx_lm() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'mlx_lm', 'sentencepiece'): sys.modules[name] = None\n"
        "import mlx_rerank\n"
        "for name in mlx_rerank.__all__: getattr(mlx_rerank, name)\n"
        "from mlx_rerank import FlagReranker, Reranker\n"
        "print(Reranker('mini').score('what do pandas eat?', 'Pandas eat bamboo.') > 0.5)\n"
        "print(type(FlagReranker('mini').compute_score(['a', 'b'])))"
    )
    assert run(code) == "True\n<class 'float'>"


def test_exported_names() -> None:
    assert mlx_rerank.__all__ == sorted(mlx_rerank.__all__, key=lambda name: (name.startswith("_"), name))
    assert dir(mlx_rerank) == sorted(mlx_rerank.__all__)
    for name in mlx_rerank.__all__:
        value = getattr(mlx_rerank, name)
        assert name == "__version__" or value.__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = mlx_rerank.missing


def test_the_embedded_model_is_small_and_carries_its_notice() -> None:
    files = list((ROOT / "assets" / "mini").iterdir())
    assert sum(path.stat().st_size for path in files) <= 30_000_000
    assert "intfloat/multilingual-e5-small" in (ROOT / "assets" / "mini" / "NOTICE").read_text()
