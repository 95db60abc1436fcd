"""Every boolean parameter of what is public takes booleans, numpy's too, and nothing else for its truth."""

import asyncio
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import seen
from training_data import make_examples

from mlx_rerank import CrossEncoder, FlagAutoReranker, FlagReranker, Reranker
from mlx_rerank.checkpoints.hub import resolve
from mlx_rerank.convert import convert
from mlx_rerank.convert.upload import contents, upload
from mlx_rerank.errors import InputError, RerankError
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.proof.verify import verify
from mlx_rerank.scoring.results import PairLogits
from mlx_rerank.train import TrainingOptions, read_examples, train

PAIRS, DOCUMENTS = [("panda", "the bear")], ["the bear", "what"]
WRONG = ["false", "true", "0", "", 0, 1, np.int64(0), 0.0, [], ()]
WITHOUT = [convert, contents, verify, read_examples, Reranker.explain, Reranker.unload]
CALLS: dict[Callable[..., Any], Callable[..., Any]] = {  # with all else that they need, of the tiny model
    Reranker: lambda tiny, **given: Reranker(tiny, **given).deterministic,
    Reranker.score: lambda tiny, **given: Reranker(tiny).score(PAIRS, **given),
    Reranker.score_stream: lambda tiny, **given: list(Reranker(tiny).score_stream(PAIRS, **given)),
    Reranker.rank: lambda tiny, **given: Reranker(tiny).rank("panda", DOCUMENTS, **given),
    Reranker.arank: lambda tiny, **given: asyncio.run(Reranker(tiny).arank("panda", DOCUMENTS, **given)),
    Reranker.logits: lambda tiny, **given: Reranker(tiny).logits(PAIRS, **given),
    PairLogits.scores: lambda tiny, **given: Reranker(tiny).logits(PAIRS).scores(**given),
    Limits: lambda _, **given: Limits(20, **given),
    CrossEncoder: lambda tiny, **given: CrossEncoder(tiny, **given).max_length,
    CrossEncoder.predict: lambda tiny, **given: CrossEncoder(tiny).predict(PAIRS, **given),
    CrossEncoder.rank: lambda tiny, **given: CrossEncoder(tiny).rank("panda", DOCUMENTS, **given),
    FlagReranker: lambda tiny, **given: FlagReranker(str(tiny), **given).compute_score(PAIRS),
    FlagReranker.compute_score: lambda tiny, **given: FlagReranker(str(tiny)).compute_score(PAIRS, **given),
    FlagAutoReranker.from_finetuned: lambda tiny, **given: FlagAutoReranker.from_finetuned(
        str(tiny), "encoder-only-base", **given
    ).compute_score(PAIRS),
    TrainingOptions: lambda _, **given: TrainingOptions(**given),
    train: lambda _, **given: train(make_examples(2), "nowhere/out", model="nowhere", **given),
    upload: lambda tiny, **given: upload(tiny, "test/tiny", **given),
    resolve: resolve,
}


def switches(function: Callable[..., Any]) -> dict[str, str]:
    """Return a function's boolean parameters, and what each may be."""
    every = inspect.signature(function).parameters.values()
    kinds = {each.name: str(getattr(each.annotation, "__name__", each.annotation)) for each in every}
    return {name: kind for name, kind in kinds.items() if re.search(r"\bbool\b", kind)}


CASES = [(function, name) for function in CALLS for name in switches(function)]


def test_no_switch_is_forgotten() -> None:
    for owner in (Reranker, CrossEncoder, FlagReranker):
        public = {method for name, method in vars(owner).items() if inspect.isfunction(method) and name[0] != "_"}
        assert {method for method in public if switches(method)} <= {*CALLS}
    assert all(switches(function) for function in CALLS)
    assert not any(switches(function) for function in WITHOUT)


@pytest.mark.parametrize(("function", "name"), CASES)
def test_what_is_taken_for_a_boolean(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)  # takes seconds
    kind = switches(function)[name]

    def outcome(value: Any) -> Any:
        try:
            return seen(CALLS[function](tiny, **{name: value}))
        except (RerankError, UserWarning) as error:
            return repr(error)

    for value in (True, False):
        assert outcome(np.bool_(value)) == outcome(value)
    allowed = [each for each in WRONG if not (isinstance(each, str) and "str" in kind)]
    for value in allowed if "None" in kind else [*allowed, None]:
        with pytest.raises(InputError, match=re.escape(f"{name} must be True or False, not {value!r}")):
            CALLS[function](tiny, **{name: value})
