"""Run the numeric tests with each kernel of OpenBLAS that this processor has, and once without OpenBLAS.

Each sums in an order of its own, so this shows what other machines compute. Arguments are handed on to pytest.
"""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

NEEDED = {"SkylakeX": "avx512f", "Haswell": "avx2 fma", "Zen": "avx2 fma", "Sandybridge": "avx", "Prescott": "pni"}
OFF, AS_IT_IS = "no OpenBLAS", "as it is"
COMPLETE = "Haswell"  # most processors have it: the tests that take long, or add little, run with it alone
PROBE = """
import ctypes
from mlx_rerank.device import blas
name = getattr(blas._library, "openblas_get_corename", None)
if name:
    name.restype = ctypes.c_char_p
print(name().decode() if name else blas.loaded() or "")
"""


def kernels() -> list[str]:
    """Return the kernels that this processor can run, by the flags of /proc/cpuinfo, where pni is SSE3."""
    if platform.machine() != "x86_64":
        return []
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return [kernel for kernel, needed in NEEDED.items() if flags.issuperset(needed.split())]


def in_use(environment: dict[str, str]) -> str:
    """Return the kernel of OpenBLAS that a process with this environment has, or another BLAS's file, or nothing."""
    return subprocess.check_output([sys.executable, "-c", PROBE], env=environment, text=True).strip()


def run(name: str, environment: dict[str, str], arguments: list[str]) -> bool:
    """Run the numeric tests, print how it went in a line, and tell whether it went well."""
    start = time.monotonic()
    marked = "numeric" if name in (COMPLETE, AS_IT_IS) else "numeric and not one_kernel"
    marked += " and not embedded" if name == OFF else ""  # MLX's own BLAS, at 1.5 GFLOP/s, would take minutes for some
    tests = sorted(Path("tests").rglob("test_*.py"))
    files = [str(path) for path in tests if "mark.numeric" in path.read_text("utf-8")]  # importing the rest takes time
    command = [sys.executable, "-m", "pytest", "-m", marked, "-q", "-p", "no:cacheprovider", *files, *arguments]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n")
    said = "FAILED" if done.returncode else "passed"
    print(
        f"{name}: {said} in {time.monotonic() - start:.0f} s ({done.stdout.strip().rpartition(chr(10))[2]})", flush=True
    )
    return not done.returncode


def main(arguments: list[str]) -> int:
    """Run all; return how many did not go well."""
    usual = {name: value for name, value in os.environ.items() if name not in ("OPENBLAS_CORETYPE", "MLX_RERANK_BLAS")}
    linux, usually = sys.platform == "linux", in_use(usual)
    chosen = kernels() if linux and usually and ".so" not in usually else []
    wanted = {kernel: usual | {"OPENBLAS_CORETYPE": kernel} for kernel in chosen}
    if not wanted:
        print("No kernel can be chosen here, for want of x86-64, Linux or OpenBLAS: the tests run as this machine is.")
        wanted = {AS_IT_IS: usual} if usually or not linux else {}
    if linux:
        wanted[OFF] = usual | {"MLX_RERANK_BLAS": "off"}
    failed = 0
    for name, environment in wanted.items():
        found = in_use(environment)
        right = found == ("" if name == OFF else name) or name == AS_IT_IS
        if not right:
            print(f"{name}: FAILED, since {found or 'no OpenBLAS'} is in use: nothing would be shown of it")
        failed += not (right and run(name, environment, arguments))
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
