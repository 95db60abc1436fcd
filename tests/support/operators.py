"""Changes of code, one place at a time, drawn at random. They are cosmic-ray's; mutants.py has the tests try them."""

import random
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.operators.provider import OperatorProvider
from parso.python.tree import Module

PACKAGE = Path(__file__).parents[2] / "mlx_rerank"
_READ = ("logger", "warn")  # what is called with a text that is only read by people


@dataclass(frozen=True)
class Mutant:
    """A file with one change.

    Args:
        path: of the file, below mlx_rerank.
        line: where it is changed.
        old: the line as it is.
        new: the line as it is changed.
        code: of the whole file.
    """

    path: str
    line: int
    old: str
    new: str
    code: str


@dataclass
class _Place:
    """A place in a file, and how it can be changed: operators of cosmic-ray, each with the number of its occurrence."""

    path: Path
    at: tuple[int, int]
    lots: random.Random
    changes: list[tuple[Operator, int]]

    def mutant(self) -> Mutant | None:
        """Return one of the changes, or nothing if none of them can be compiled."""
        code = self.path.read_text("utf-8")
        for operator, occurrence in self.lots.sample(self.changes, len(self.changes)):
            changed = mutate_code(code, operator, occurrence)
            if changed and changed != code and _compiles(changed):
                before, after, at = code.splitlines(), changed.splitlines(), self.at[0] - 1
                old, removed = before[at].strip(), len(after) < len(before) or not after[at].strip()
                new = f"(without {old})" if removed else " ".join(after[at].split())
                return Mutant(self.path.relative_to(PACKAGE).as_posix(), at + 1, old, new, changed)
        return None


def draw(parts: Sequence[str], seed: int, count: int) -> list[Mutant]:
    """Return up to `count` mutants of files, in their order, at most one of each place.

    Args:
        parts: files and folders below mlx_rerank.
        seed: decides which places are changed, and how. What it decides of a line does not depend on other lines.
        count: how many are wanted.
    """
    files = [sorted((PACKAGE / part).rglob("*.py")) or [PACKAGE / part] for part in parts]
    places = [place for file in dict.fromkeys(chain(*files)) for place in _places(file, seed)]
    found: list[tuple[int, Mutant]] = []
    for _, i in sorted((place.lots.random(), i) for i, place in enumerate(places)):
        if len(found) == count:
            break
        if mutant := places[i].mutant():
            found.append((i, mutant))
    return [mutant for _, mutant in sorted(found, key=itemgetter(0))]


def _places(path: Path, seed: int) -> Iterator[_Place]:
    """Yield the places of a file."""
    code = path.read_text("utf-8")
    tree, lines = get_ast(code), code.splitlines()
    nodes = list(ast_nodes(tree))
    found: dict[tuple, list[tuple[Operator, int]]] = {}
    for name, kind in ((name, OperatorProvider()[name]) for name in OperatorProvider()):
        if kind.arguments():  # they would have to be the names of variables
            continue
        operator = kind()  # pyright: ignore[reportCallIssue]  # those with parameters were left out
        positions = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, start in enumerate(positions):
            if not _left_alone(tree, start):
                found.setdefault((start, name.partition("_")[0]), []).append((operator, occurrence))
    seen: Counter[tuple] = Counter()
    for ((row, column), name), changes in sorted(found.items()):
        line = lines[row - 1]
        key = (path.relative_to(PACKAGE).as_posix(), line.strip(), column - len(line) + len(line.lstrip()), name)
        seen[key] += 1
        yield _Place(path, (row, column), random.Random(f"{seed} {key} {seen[key]}"), changes)


def _left_alone(tree: Module, at: tuple[int, int]) -> bool:
    """Tell whether a place is never changed: it is of a type, of `__repr__`, or in a text that only people read."""
    node: Any = tree.get_leaf_for_position(at)
    union, in_function, in_text = getattr(node, "value", "") == "|", False, False
    if node.parent is not None and node.parent.type == "parameters":  # the star between them is no product
        return True
    while (parent := node.parent) is not None:
        kind = parent.type
        in_text |= kind == "fstring"
        in_function |= kind == "funcdef"
        annotation = kind == "tfpdef" or (kind == "annassign" and node is parent.children[1])
        if annotation or (kind == "funcdef" and (node is parent.annotation or parent.name.value == "__repr__")):
            return True
        called = kind in ("atom_expr", "power") and parent.children[0].get_code().strip() in _READ
        if in_text and (kind == "raise_stmt" or called):
            return True
        if kind in ("decorator", "if_stmt") and parent.get_code().strip().startswith(("@overload", "if TYPE_CHECKING")):
            return True
        node = parent
    return union and not in_function


def _compiles(code: str) -> bool:
    """Tell whether Python takes the code, and without a warning: no test is needed to notice others."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            compile(code, "changed", "exec")
        except (SyntaxError, Warning):
            return False
    return True
