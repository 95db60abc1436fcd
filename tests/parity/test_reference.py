"""The PyTorch path: its results' form, and what it says when torch is missing. Parity is in test_logits.py."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint

from mlx_rerank import Reranker
from mlx_rerank.errors import InputError, NonFiniteScoreError
from mlx_rerank.proof.reference import ReferenceReranker

pytestmark = pytest.mark.numeric

DOCUMENTS = ["the bear", {"text": "what is panda", "id": 7}, "the bear " * 100, ""]


@pytest.fixture(scope="module")
def reference(tiny: Path) -> ReferenceReranker:
    return ReferenceReranker(tiny, max_length=64)


def test_it_gives_what_the_reranker_gives(reference: ReferenceReranker, tiny_reranker: Reranker) -> None:
    pairs = [("panda", text) for text in ("the bear", "", "what is panda")]
    np.testing.assert_allclose(reference.score(pairs), tiny_reranker.score(pairs), atol=1e-5)
    found, expected = reference.rank("panda", DOCUMENTS), tiny_reranker.rank("panda", DOCUMENTS)
    assert [(r.index, r.document, r.truncated_tokens) for r in found] == [
        (r.index, r.document, r.truncated_tokens) for r in expected
    ]
    np.testing.assert_allclose([r.score for r in found], [r.score for r in expected], atol=1e-5)
    assert reference.rank("panda", DOCUMENTS, top_n=1, raw_scores=True)[0].index == expected[0].index


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"dtype": "int8"}, "dtype 'int8'"), ({"max_length": 4}, "between 5 and 64"), ({"max_length": 65}, "65")],
)
def test_bad_arguments(tiny: Path, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ReferenceReranker(tiny, **arguments)


def test_bad_texts_and_weights(reference: ReferenceReranker, tmp_path: Path) -> None:
    assert ReferenceReranker(write_checkpoint(tmp_path / "a")).max_length == 64
    with pytest.raises(InputError, match="lone surrogate"):
        reference.score([("panda", "\ud83d")])
    tensors = random_tensors(TINY)
    tensors["classifier.dense.bias"][0] = np.nan
    with pytest.raises(NonFiniteScoreError):
        ReferenceReranker(write_checkpoint(tmp_path / "b", tensors=tensors)).score([("a", "b")])


def test_no_pairs(reference: ReferenceReranker) -> None:
    assert reference.score([]).shape == (0,)
    assert reference.rank("panda", []) == []


def test_without_torch_the_extra_is_named(tiny: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from mlx_rerank.proof.reference import ReferenceReranker\n"
        f"ReferenceReranker(Path({str(tiny)!r}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingDependencyError: this needs torch, which is not installed: pip install 'mlx-rerank[reference]'" in (
        result.stderr
    )
