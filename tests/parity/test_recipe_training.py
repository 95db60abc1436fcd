"""The recipe's train_mini.py on the tiny checkpoint: it learns, and goes on to the same weights after a stop."""

import gzip
import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from mlx_rerank import Reranker
from mlx_rerank.device import blas

torch: Any = blas.import_with_own("torch")
TRAINING = Path(__file__).parents[2] / "recipes" / "mini"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, with pools of two steps of two groups."""
    monkeypatch.syspath_prepend(TRAINING)
    monkeypatch.setattr(importlib.import_module("batches"), "GROUPS", 2)
    monkeypatch.setattr(importlib.import_module("batches"), "POOL", 2)
    return importlib.import_module("train_mini")


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """Two files of five groups; pools do not end where files do."""
    folder = tmp_path / "groups"
    folder.mkdir()
    for shard in range(2):
        with gzip.open(folder / f"groups-{shard:03}.jsonl.gz", "wt") as file:
            for i in range(5):
                texts = [f"the panda is {shard} {i} " + "bear " * (1 + 8 * j) for j in range(3)]
                group = {"query": f"what is {i}", "texts": texts, "target": [0.8, 0.2, 0.0], "length": 40}
                print(json.dumps(group), file=file)
    return folder


def start(recipe: Any, tiny: Path, out: Path, groups: Path, *arguments: str) -> Any:
    command = [str(tiny), str(out), "--groups", str(groups), "--seconds", "1e9", "--lr", "1e-3", *arguments]
    return recipe.Run(recipe.arguments().parse_args(command))


def take_pool(run: Any) -> list[float]:
    return [run.learn(batch)[0] for batch in run.batches.pool()]


def test_goes_on_to_the_same_weights(recipe: Any, tiny: Path, groups: Path, tmp_path: Path) -> None:
    whole = start(recipe, tiny, tmp_path / "whole", groups)
    losses = take_pool(whole) + take_pool(whole)
    assert whole.batches.pool() is None  # two groups are left
    begun = start(recipe, tiny, tmp_path / "two", groups)
    assert take_pool(begun) == losses[:2]
    begun.save_state("state.pt")
    resumed = start(recipe, tiny, tmp_path / "two", groups)
    assert (resumed.step, resumed.batches.position) == (2, 4)
    assert take_pool(resumed) == losses[2:]
    weights = resumed.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.model.state_dict().items())


def test_what_is_trained(recipe: Any, tiny: Path, groups: Path, tmp_path: Path) -> None:
    run = start(recipe, tiny, tmp_path / "out", groups, "--warmup", "1")
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    take_pool(run)
    after = run.model.state_dict()
    assert {name for name, value in before.items() if torch.equal(value, after[name])} == {
        "roberta.embeddings.word_embeddings.weight"
    }


def test_the_first_step(recipe: Any, tiny: Path, groups: Path, tmp_path: Path) -> None:
    run = start(recipe, tiny, tmp_path / "out", groups)
    batch = run.batches.pool()[0]
    short, long = batch.halves
    assert short.shape[1] < long.shape[1]
    rows = [row[row != 1] for half in batch.halves for row in half]
    logits = torch.stack([run.model(input_ids=rows[i][None]).logits[0, 0] for i in batch.back]).view(2, 3)
    lengths = torch.tensor([len(rows[i]) for i in batch.back]).view(2, 3)
    assert (lengths.diff() > 0).all()  # a group's texts in their order
    found = recipe.logits_of(run.model, batch)
    assert (found - logits).abs().max() < 0.1 * logits.std()  # its passes are in bfloat16
    expected = 0.0
    for own, target in zip(logits.tolist(), batch.target.tolist(), strict=True):
        total = math.log(sum(map(math.exp, own)))
        expected += sum(share * (total - x) for x, share in zip(own, target, strict=True)) / 2
        binary = (math.log1p(math.exp(x)) - share * x for x, share in zip(own, target, strict=True))
        expected += 0.5 * sum(binary) / 6
    assert run.learn(batch)[0] == pytest.approx(expected, rel=0.02)


def test_learning_rate(recipe: Any, tiny: Path, groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(recipe, tiny, tmp_path / "out", groups, "--seconds", "100", "--decay", "20", "--warmup", "4")
    found = []
    for step, spent in ((0, 0.0), (3, 1.0), (50, 80.0), (60, 90.0), (70, 101.0)):
        run.step = step
        monkeypatch.setattr(run.clock, "spent", lambda spent=spent: spent)
        found.append(run.rate())
    assert found == [0.25, 1.0, 1.0, 0.5, 0.0]


def test_a_run_to_its_end(
    recipe: Any, tiny: Path, groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(recipe, tiny, tmp_path / "out", groups, "--seconds", "12", "--decay", "9", "--save", "1e9")
    seconds = iter(range(0, 100, 2))
    monkeypatch.setattr(run.clock, "spent", lambda: float(next(seconds)))
    run.train()
    assert run.step == 4
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"state.pt", "state-peak.pt", "model"}
    assert json.loads((tmp_path / "out" / "model" / "config.json").read_text())["dtype"] == "float16"
    first, second = Reranker(tmp_path / "out" / "model", device="cpu").rank("what is", ["the panda", "a bear"])
    assert first.score > second.score
