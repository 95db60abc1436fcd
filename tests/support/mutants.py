"""Change the code in one place at a time, at random, and see whether the tests notice: `make mutants`.

The changes are cosmic-ray's: another operator or number, a condition turned round, a loop that does nothing, an
exception that is not caught, a decorator gone. A place is drawn first, then one of its changes, so that the many ways
to replace an operator count as one.

Not changed: types, `__repr__`, what the texts of errors, warnings and logs are made of, and what Python would not
compile. Literal texts, docstrings among them, are never changed; sizes and overheads are.

The tests run in a copy of the tree, the mirror of the changed file first, then others that use it, and end with the
first failure. A change with which a test does not end counts as noticed. Each that no test notices is
printed, with the reason why it changes nothing that a caller could see, if equivalent_mutants.py has one: then it is
not tried, and counts as not noticed all the same. The exit code is 1 if less than nine tenths are noticed.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
from equivalent_mutants import reason
from operators import PACKAGE, Mutant, draw

ROOT = PACKAGE.parent
CHANGED = ("pairs", "scoring", "server/dialects.py", "server/scheduler.py", "compat", "checkpoints")
USERS = {  # tests of all that uses a package, besides those that mirror a file: the more telling ones first
    "pairs": ("unit/test_values.py", "unit/pairs", "unit/scoring"),
    "scoring": ("unit/test_values.py", "unit/scoring", "server"),
    "checkpoints": ("unit/test_values.py", "unit/checkpoints", "unit/convert", "unit/scoring", "families"),
    "compat": ("unit/compat", "parity/test_flagembedding.py", "parity/test_sentence_transformers.py"),
    "server": ("unit/test_values.py", "server"),
}
TWO_PROCESSES = ("-n", "2", "--dist", "loadfile")
LEAST = 0.9  # share of changes that are to be noticed
LONGEST, ALL = 40, 900  # seconds that a test may last, and all of a file together: more is taken for an endless loop


def main(arguments: list[str]) -> int:
    """Draw changes, try them and print how it went; return 1 if too few were noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="how many places are changed")
    parser.add_argument("--seed", type=int, default=1, help="decides which, and how")
    parser.add_argument("--only", action="append", metavar="PATH", help="a file or folder of mlx_rerank, not all")
    options = parser.parse_args(arguments)
    mutants = draw(options.only or CHANGED, options.seed, options.count)
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        tree = shutil.copytree(ROOT, Path(scratch) / "tree", ignore=shutil.ignore_patterns(".*", "__pycache__"))
        runs, missed, start = Runs(tree), [], time.monotonic()
        for number, mutant in enumerate(mutants, 1):
            known = reason(mutant.path, mutant.old, mutant.new)
            noticed = "" if known else runs.noticed(mutant, number)
            missed += [] if noticed else [mutant]
            print(f"{number}/{len(mutants)} {shown(mutant)}\n    {noticed or 'NOT NOTICED'}", flush=True)
    return report(mutants, missed, time.monotonic() - start)


def shown(mutant: Mutant) -> str:
    """Return what was changed, in three lines."""
    return f"{mutant.path}:{mutant.line}\n  - {mutant.old}\n  + {mutant.new}"


def report(mutants: list[Mutant], missed: list[Mutant], seconds: float) -> int:
    """Print what no test noticed and why, and a table; return 1 if it is too much."""
    print("\nNot noticed:")
    for mutant in missed:
        why = reason(mutant.path, mutant.old, mutant.new) or "UNEXPLAINED: write a test, or say why none could tell"
        print(f"{shown(mutant)}\n    {why}")
    changed, left = (Counter(mutant.path for mutant in some) for some in (mutants, missed))
    print(f"\n{'file':50} changed noticed")
    for path, count in changed.items():
        print(f"{path:50} {count:7} {count - left[path]:7}")
    share = 1 - len(missed) / len(mutants)
    print(f"{'all':50} {len(mutants):7} {len(mutants) - len(missed):7}  {share:.1%}, in {seconds / 60:.0f} min")
    return int(share < LEAST)


def stages(tree: Path, path: str) -> list[tuple[str, ...]]:
    """Return the tests of a file in the order in which they run, as arguments of pytest in a tree."""
    package = path.split("/")[0]
    folder = tree / "tests" / ("server" if package == "server" else f"unit/{package}")
    mirror = sorted(folder.glob(f"test_{Path(path).stem}*.py"))
    own = tuple(str(test.relative_to(tree)) for test in mirror)
    return [*([own] if own else []), (*TWO_PROCESSES, *(f"tests/{test}" for test in USERS[package]))]


class Runs:
    """Runs of tests in a copy of the tree."""

    def __init__(self, tree: Path) -> None:
        """Take a copy, in a directory of its own, where the tests may also write."""
        self._tree = tree
        self._whole: set[tuple[str, ...]] = set()  # tests that pass without a change
        kept = tree.with_name("kept")  # what is changed may delete caches, so these are not the user's
        kept.mkdir()
        own = {"TMPDIR": kept, "HF_HOME": kept / "hub", "MLX_RERANK_CACHE": kept / "copies", "PYTHONPATH": tree}
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
        self._environment = os.environ | {name: str(path) for name, path in own.items()} | threads

    def noticed(self, mutant: Mutant, number: int) -> str:
        """Return what noticed a change, nothing if all tests pass.

        Raises:
            RuntimeError: tests fail without a change.
        """
        tried = stages(self._tree, mutant.path)
        if tried[-1] not in self._whole:
            if failure := self._failure(tried[-1]):
                raise RuntimeError(f"tests fail without a change: {failure}")
            self._whole.add(tried[-1])
        target = self._tree / "mlx_rerank" / mutant.path
        whole = target.read_text("utf-8")
        try:
            target.write_text(mutant.code, "utf-8")
            os.utime(target, (number, number))  # by its time, Python tells that what it compiled before is out of date
            return next(filter(None, map(self._failure, tried)), "")
        finally:
            target.write_text(whole, "utf-8")

    def _failure(self, tests: tuple[str, ...]) -> str:
        """Run tests until one fails; return which did, nothing if all pass."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *tests]
        command += ["-o", f"faulthandler_timeout={LONGEST}", "-o", "faulthandler_exit_on_timeout=true"]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(
            command, cwd=self._tree, env=self._environment, start_new_session=True, **streams
        ) as process:
            try:
                printed, _ = process.communicate(timeout=ALL)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return "the tests do not end"
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        if not process.returncode:
            return ""
        if process.returncode in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
            raise RuntimeError(f"no tests were run: {printed}")
        failures = [line for line in printed.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return failures[0][:160] if failures else f"the tests end with exit code {process.returncode}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
