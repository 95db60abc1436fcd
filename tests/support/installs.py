"""Install a wheel of this tree with each extra alone into an empty environment, and use what the extra brings.

With --oldest the packages that pyproject.toml names have the oldest versions that go together, else the newest. Extras
that are named are tried alone; "none" is the package without any. uv installs, and heeds its own variables.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RANK = """
from mlx_rerank import FlagReranker, Reranker
assert Reranker("mini").rank("pandas", ["stone", "Pandas eat bamboo"])[0].index == 1
FlagReranker("mini").compute_score([["pandas", "stone"]])
"""
SERVE = """
import json, re, subprocess, sys
from urllib.request import Request, urlopen
command = [sys.executable, "-m", "mlx_rerank", "serve", "--port", "0"]
server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
try:
    url = next(found[1] for line in server.stderr if (found := re.search(r"listening on (http\\S+?)/?$", line)))
    next(line for line in server.stderr if "ready" in line)
    body = json.dumps({"query": "pandas", "documents": ["stone", "Pandas eat bamboo"]}).encode()
    asked = Request(url + "/v1/rerank", body, {"Content-Type": "application/json"})
    assert json.load(urlopen(asked, timeout=60))["results"][0]["index"] == 1
    assert b"mlx-rerank" in urlopen(url, timeout=60).read()
finally:
    server.kill()
"""
NO_TORCH = "import importlib.util; assert not importlib.util.find_spec('torch')"
USES = {  # of each extra: what fails without it
    "none": (NO_TORCH, RANK, SERVE),
    "server": (SERVE,),
    "reference": ("import scipy.stats, torch, mlx_rerank.proof.reference",),
    "train": ("import bm25s, mlx_rerank.train",),
    "langchain": ("from mlx_rerank.integrations.langchain import MLXRerank; MLXRerank(model='mini')",),
    "llama-index": ("from mlx_rerank.integrations.llama_index import MLXRerank; MLXRerank(model='mini')",),
    "haystack": ("from mlx_rerank.integrations.haystack import MLXRanker; MLXRanker(model='mini')",),
    "lancedb": ("from mlx_rerank.integrations.lancedb import MLXReranker; MLXReranker('mini')",),
    "rerankers": ("from mlx_rerank.integrations.rerankers import MLXRanker; MLXRanker('mini')",),
}


def main(arguments: list[str]) -> int:
    """Try the extras; return how many failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help=f"of {', '.join(USES)}; else all of them")
    parser.add_argument("--oldest", action="store_true")
    parser.add_argument("--wheel", type=Path, help="to install, instead of one that is built")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.extras) - USES.keys():
        parser.error(f"no such extra: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as work:
        wheel = chosen.wheel.absolute() if chosen.wheel else built(Path(work))
        failed = [extra for extra in chosen.extras or USES if not works(wheel, extra, chosen.oldest)]
    print(f"not as they should be: {', '.join(failed)}" if failed else "all as they should be")
    return len(failed)


def built(target: Path) -> Path:
    """Return a wheel of this tree."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(target), str(ROOT)]
    subprocess.run(command, check=True)
    return next(target.glob("*.whl"))


def works(wheel: Path, extra: str, oldest: bool) -> bool:
    """Install an extra, use it, print a line, or what went wrong, and tell whether all went well."""
    start = time.monotonic()
    uv = [sys.executable, "-m", "uv", "--quiet"]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as work:
        python, versions = str(Path(work, "bin", "python")), "lowest-direct" if oldest else "highest"
        # uv reads what is asked for from the file: of a wheel alone "direct" would be the wheel.
        asked = ["--requirements", str(ROOT / "pyproject.toml"), *(() if extra == "none" else ("--extra", extra))]
        commands = [
            [*uv, "venv", "--allow-existing", "--python", sys.executable, work],
            [*uv, "pip", "install", "--python", python, "--resolution", versions, *asked, str(wheel)],
            [*uv, "pip", "check", "--python", python],
            *([python, "-c", use] for use in USES[extra]),
        ]
        for command in commands:
            done = subprocess.run(command, cwd=work, env=own, check=False, capture_output=True, text=True)
            if done.returncode:
                print(f"{extra}: FAILED\n{' '.join(command)}\n{done.stdout}{done.stderr}", flush=True)
                return False
        size = sum(path.lstat().st_size for path in Path(work).rglob("*")) / 1e6
    print(f"{extra}: {size:.0f} MB, works after {time.monotonic() - start:.0f} s", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
