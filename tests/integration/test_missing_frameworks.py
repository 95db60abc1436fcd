"""Adapters where their framework is not installed."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("adapter", "missing", "name", "extra"),
    [
        ("langchain", "langchain_core", "LangChain", "langchain"),
        ("llama_index", "llama_index.core", "LlamaIndex", "llama-index"),
        ("haystack", "haystack", "Haystack", "haystack"),
        ("lancedb", "lancedb", "LanceDB", "lancedb"),
        ("lancedb", "pyarrow", "LanceDB", "lancedb"),
        ("rerankers", "rerankers", "rerankers", "rerankers"),
    ],
)
def test_the_extra_is_named(adapter: str, missing: str, name: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "import mlx_rerank.errors\n"
        f"try: import mlx_rerank.integrations.{adapter}\n"
        "except mlx_rerank.errors.MissingDependencyError as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.startswith(f"{name} cannot be imported")
    assert found.stdout.endswith(f"pip install 'mlx-rerank[{extra}]'\n")
