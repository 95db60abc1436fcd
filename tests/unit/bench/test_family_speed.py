"""benchmarks/family_speed.py: what it writes can be run, takes turns, and leaves out what is not run."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from mlx_rerank import Reranker
from mlx_rerank.bench.process import Answer
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.errors import UnsupportedModelError

SMALL = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def families() -> Any:
    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    try:
        return importlib.import_module("family_speed")
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize(("name", "rows"), [("MiniLM", 30522), ("gte", 70_000)])
def test_models_can_be_run_and_have_as_many_pieces_as_rows(families: Any, tmp_path: Path, name: str, rows: int) -> None:
    families.write_model(tmp_path / name, families.CONFIGS[name] | SMALL | {"vocab_size": rows})
    reranker = Reranker(tmp_path / name)
    tokenizer = Checkpoint.open(tmp_path / name).tokenizer()
    assert tokenizer.get_vocab_size() == rows
    pieces = tokenizer.encode("what do pandas eat?", add_special_tokens=False).tokens
    assert len(pieces) < 10
    assert not {"[UNK]", "<unk>"} & set(pieces)
    first, second = reranker.logits([("what do pandas eat?", text) for text in ("bamboo", "Pandas eat rice.")]).logits
    assert first != second


def test_a_family_that_is_not_run_is_left_out(
    families: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = families.CONFIGS["MiniLM"] | {"model_type": "unheard of"}
    monkeypatch.setitem(families.CONFIGS, "MiniLM", config)
    with pytest.raises(UnsupportedModelError):
        families.write_model(Path("not written"), config)
    monkeypatch.setattr(sys, "argv", ["families.py", "--models", "MiniLM"])
    families.main()
    assert "MiniLM is left out: mlx-rerank runs" in capsys.readouterr().out


def test_libraries_take_turns_and_the_first_turn_does_not_count(families: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    class Fake:
        def __init__(self, contender: Any, _: int) -> None:
            self.name = contender.name

        def __enter__(self) -> "Fake":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def score(self, _: Any) -> Answer:
            turns.append(self.name)
            seconds = {families.OWN: 1.0, families.PEER: 3.0}[self.name] if len(turns) > 2 else 100.0
            return Answer(seconds, [len(turns) / 8, 0.0], None, 10**6 * len(turns))

    monkeypatch.setattr(families, "Worker", Fake)
    found = families.measure(Path("model"), [("a", "b")] * 2, "cpu", 2, 1)
    own, peer = families.OWN, families.PEER
    assert turns == [own, peer, own, peer, peer, own]
    assert found["max_delta_logit"] == 1 / 8
    cells = families.row("MiniLM", found, 2)
    assert cells == ["MiniLM", "2.0 (2.0..2.0)", "0.7 (0.7..0.7)", "3.00 (3.00..3.00)", "6", "5", "1.2e-01"]
