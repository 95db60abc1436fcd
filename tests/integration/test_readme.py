"""The README's Python, run as it stands on the embedded model; and the import paths that programs rely on."""

import asyncio
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
GIVEN = """
import mlx.core as mx
from mlx_rerank import Reranker
query, documents = "what is a panda?", ["hi", "The giant panda is a bear native to China.", "rain"]
pairs = [(query, document) for document in documents]
reranker = Reranker("mini")
"""
MODEL = """
from mlx_rerank.checkpoints.checkpoint import Checkpoint
model = Checkpoint.open("mini").load(mx.float16, keep_quantized=False, evaluate=False)
input_ids, mask = mx.zeros((2, 16), mx.int32), mx.ones((2, 16), mx.bool_)
"""


def test_all_blocks_are_found() -> None:
    assert len(BLOCKS) >= 8


@pytest.mark.parametrize("block", BLOCKS, ids=[block.partition("\n")[0][:60] for block in BLOCKS])
def test_a_block_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"query": "what is a panda?", "pos": ["The panda is a bear."], "neg": ["Rain.", "Tea."]}
    for name in ("pairs.jsonl", "dev.jsonl"):
        Path(name).write_text(json.dumps(row) + "\n")
    code = re.sub(r"BAAI/bge-reranker-[\w-]+", "mini", block)  # which cannot be had without the hub
    code = GIVEN + (MODEL if "assert_one_dtype" in code else "") + code
    names: dict[str, Any] = {}
    body = "\n".join("    " + line for line in code.splitlines())
    exec(compile(f"async def program():\n{body}\n", "README.md", "exec"), names)
    asyncio.run(names["program"]())


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
