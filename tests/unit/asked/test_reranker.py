"""Every argument of Reranker, of its methods and of convert."""

import asyncio
import threading
from dataclasses import astuple
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from asking import Asked, parameters
from checkpoints import TINY, random_tensors, write_checkpoint
from fake_hub import FakeHub

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.convert import convert
from mlx_rerank.pairs.limits import Limits

PAIRS = [("panda", "the bear"), ("what is panda", "a bear " * 40), ("panda", "what"), ("the", "")]
DOCUMENTS = [document for _, document in PAIRS]
MANY = [f"the bear {i}" for i in range(25)]  # more than a first stage keeps
SET = threading.Event()
SET.set()
LOADING = {
    "model": Asked({"model": "other"}),
    "dtype": Asked({"dtype": "float16"}),
    "device": Asked({"device": "tpu"}, refused="device 'tpu' is not 'gpu' or 'cpu'"),
    "max_length": Asked({"max_length": 20}),
    "long_documents": Asked({"long_documents": "windows"}),
    "token_budget": Asked({"token_budget": 70}),
    "deterministic": Asked({"deterministic": True}),
    "embeddings": Asked({"embeddings": "mapped"}),
    "revision": Asked({"revision": "v1"}, refused="revision 'v1' is for models of the hub"),
    "cache_dir": Asked({"cache_dir": "elsewhere"}, beside={"model": "test/tiny"}),
    "score_cache": Asked({"score_cache": "scores.db"}),
    "cpu_threads": Asked({"cpu_threads": 0}, refused="cpu_threads must be a whole number of at least 1, not 0"),
    "template": Asked({"template": "other"}, refused="template 'other' is not one of"),
    "instruction": Asked({"instruction": "find"}, refused="reads no instruction"),
    "first_stage": Asked({"first_stage": "other"}),
    "keep": Asked({"keep": 2}, beside={"first_stage": "other"}),
}
CONTROL = {
    "show_progress": Asked({"show_progress": True}),
    "timeout": Asked({"timeout": 1e-9}, refused="0 of 4 pairs were scored"),
    "cancel": Asked({"cancel": SET}, refused="when cancel was set"),
}
RAW = {"raw_scores": Asked({"raw_scores": True})}
SCORING = {
    "pairs": Asked({"pairs": PAIRS[1:]}),
    "document": Asked({"pairs": "panda", "document": "the bear"}),
} | RAW
RANKING = {
    "query": Asked({"query": "what"}),
    "documents": Asked({"documents": DOCUMENTS[1:]}),
    "top_n": Asked({"top_n": 2}),
    "threshold": Asked({"threshold": 0.5}),
} | RAW
METHODS: dict[str, dict[str, Asked]] = {
    "score": SCORING | CONTROL,
    "score_stream": {"pairs": SCORING["pairs"]}
    | RAW
    | {"timeout": Asked({"timeout": 1e-9}, refused="0 of 4 pairs were scored"), "cancel": CONTROL["cancel"]},
    "rank": RANKING | CONTROL,
    "arank": RANKING | {"timeout": CONTROL["timeout"]},
    "explain": {
        "query": Asked({"query": "what"}),
        "document": Asked({"document": "what"}),
        "max_passes": Asked({"max_passes": 2}),
        "timeout": Asked({"timeout": 1e-9}, refused="0 of at most 128 passes"),
        "cancel": CONTROL["cancel"],
    },
    "logits": {
        "pairs": SCORING["pairs"],
        "limits": Asked({"limits": Limits(9)}),
        "batch_size": Asked({"batch_size": 0}, refused="batch_size must be a whole number of at least 1, not 0"),
    }
    | CONTROL,
}
USUAL: dict[str, dict[str, Any]] = {
    "score": {"pairs": PAIRS},
    "score_stream": {"pairs": PAIRS},
    "rank": {"query": "panda", "documents": DOCUMENTS},
    "arank": {"query": "panda", "documents": DOCUMENTS},
    "explain": {"query": "panda", "document": "the bear is what"},
    "logits": {"pairs": PAIRS},
}
CONVERTING = {
    "hf_path": Asked({"hf_path": "other"}),
    "mlx_path": Asked({"mlx_path": "."}, refused=r"\. exists"),
    "dtype": Asked({"dtype": "float32"}),
    "revision": Asked({"revision": "v1"}, refused="revision 'v1' is for models of the hub"),
    "layers": Asked({"layers": Quantization(64, 8, "affine")}),
    "embeddings": Asked({"embeddings": Quantization(64, 8, "affine")}),
    "target_bits": Asked({"target_bits": 0.5}, refused="0.5 bits a weight cannot be met"),
    "trim_vocab": Asked({"trim_vocab": ["the panda"]}),
    "name": Asked({"name": "another name"}),
    "template": Asked({"template": "other"}, refused="template 'other' is not one of"),
}


@pytest.fixture
def place(hub: FakeHub, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with another model in it, and the tiny one on the hub."""
    hub.publish("test/tiny", tiny)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    work = tmp_path / "work"
    write_checkpoint(work / "other", tensors=random_tensors(TINY, seed=1))
    monkeypatch.chdir(work)
    return work


def test_no_argument_is_forgotten() -> None:
    assert set(LOADING) == parameters(Reranker)
    assert set(CONVERTING) == parameters(convert)
    public = {name for name in vars(Reranker) if not name.startswith("_") and callable(getattr(Reranker, name))}
    assert public == {*METHODS, "unload"}
    for name, cases in METHODS.items():
        assert set(cases) == parameters(getattr(Reranker, name)), name


@pytest.mark.parametrize("name", LOADING)
def test_loading(tiny: Path, place: Path, name: str) -> None:
    def load(model: str | Path = tiny, **options: Any) -> tuple[Any, ...]:
        reranker = Reranker(model, **options)
        ranking = [(result.index, result.score) for result in reranker.rank("panda", MANY)]
        own = (reranker.dtype, reranker.max_length, reranker.token_budget, reranker.deterministic, reranker.embeddings)
        return reranker.score(PAIRS), ranking, own, sorted(path.name for path in place.iterdir())

    LOADING[name].check(load)


@pytest.mark.parametrize(("method", "name"), [(method, name) for method in METHODS for name in METHODS[method]])
def test_methods(tiny_reranker: Reranker, capsys: pytest.CaptureFixture[str], method: str, name: str) -> None:
    def call(**arguments: Any) -> tuple[Any, str]:
        given = {**USUAL[method], **arguments}
        first = [given.pop(key) for key in ("pairs", "document") if key in given and method.startswith("score")]
        found: Any = getattr(tiny_reranker, method)(*first, **given)
        if method == "arank":
            found = asyncio.run(found)
        if method in ("rank", "arank", "score_stream"):
            found = [astuple(each) for each in found]
        if method == "logits":
            found = (found.logits, found.truncated_tokens)
        return found, "Scoring" if "Scoring" in capsys.readouterr().err else ""

    METHODS[method][name].check(call)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", CONVERTING)
def test_converting(tiny: Path, name: str) -> None:
    numbers = count()

    def run(hf_path: str | Path = tiny, mlx_path: str | None = None, **options: Any) -> dict[str, Any]:
        target = convert(hf_path, f"{next(numbers)}/target" if mlx_path is None else mlx_path, **options)
        return {path.name: path.read_bytes() for path in target.iterdir()}

    CONVERTING[name].check(run)
