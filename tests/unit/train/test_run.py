"""A whole run: what it learns, what it leaves alone, and the directory that it writes."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from mlx.utils import tree_flatten
from training_data import make_examples, make_run, text

from mlx_rerank import Reranker
from mlx_rerank.checkpoints import mapped
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.checkpoints.tensors import open_tensors
from mlx_rerank.convert import convert
from mlx_rerank.errors import InputError, OutputError, OutputExistsError
from mlx_rerank.train import Example, TrainingOptions, train, trainer
from mlx_rerank.train.learner import Learned
from mlx_rerank.train.steps import Step
from mlx_rerank.train.trainer import Since

EXAMPLES = make_examples(6)
WORDS = "embeddings.word_embeddings"
WORDS = "embeddings.word_embeddings"
PAIRS = [("panda", "the bear"), ("what is panda", ""), ("熊", "a bear is the panda")]


def run(directory: Path | str, output: Path, *, dtype: str = "float32", data: Any = EXAMPLES, **options: Any) -> Path:
    chosen = TrainingOptions(**({"learning_rate": 1e-3, "batch_size": 3} | options))
    return train(data, output, model=directory, options=chosen, dtype=dtype, show_progress=False)


def tensors_of(directory: Path) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in open_tensors(directory).items()}


def task(queries: int, seed: int) -> list[Example]:
    """Return queries of which those documents are relevant that begin with the same word."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(queries):
        first, *others = random.permutation(["panda", "bear", "sun", "tea", "river"])
        documents = [f"{word} {text(random, 1)}" for word in (first, *others)]
        order = random.permutation(5)
        labels = tuple(float(i == 0) for i in order)
        made.append(Example(f"what is {first}", tuple(documents[i] for i in order), labels))
    return made


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize("options", [{"learning_rate": 1e-3}, {"lora_rank": 4, "learning_rate": 5e-3}], ids=str)
def test_it_learns(tiny: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    records: list[dict[str, Any]] = []
    chosen = TrainingOptions(epochs=6, batch_size=4, evaluate_every=20, **options)
    train(
        task(32, 0), tmp_path / "out", model=tiny, dev=task(16, 1), options=chosen, report=records.append,
        show_progress=False,
    )  # fmt: skip
    assert [record["step"] for record in records] == [0, 20, 40, 48]
    assert records[-1]["loss"] < 0.7 * records[1]["loss"]
    assert records[0]["dev_ndcg"] < 0.7
    assert records[-1]["dev_ndcg"] > records[0]["dev_ndcg"] + 0.1


class Records(list[dict[str, Any]]):
    """A list that is called with what it is to hold: false, while it is empty."""

    __call__ = list.append


def test_what_is_written(tiny: Path, tmp_path: Path) -> None:
    records = Records()
    options = TrainingOptions(batch_size=4, epochs=2)
    target = train(EXAMPLES, tmp_path / "new" / "out", model=tiny, options=options, report=records, show_progress=False)
    assert records
    assert target == tmp_path / "new" / "out"
    assert sorted(path.name for path in target.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert [path.name for path in target.parent.iterdir()] == ["out"]
    config = json.loads((target / "config.json").read_text())
    assert config["dtype"] == "float16"
    done = config["mlx_rerank"]
    assert done["source"] == "tiny"
    assert done["training"]["queries"] == 6
    assert done["training"]["history"] == records
    assert [record["step"] for record in records] == [0, 2, 4]
    assert done["training"]["options"] | {"losses": None} == vars(options) | {"losses": None}
    assert done["training"]["options"]["losses"] == {"listwise": 1.0, "binary": 0.5}
    text = (target / "config.json").read_text() + (target / "README.md").read_text()
    assert str(tmp_path) not in text
    assert np.isfinite(Reranker(target, device="cpu").score(PAIRS)).all()
    assert {value.dtype for value in open_tensors(target).values()} == {mx.float16}


def test_frozen_embeddings(tiny: Path, tmp_path: Path) -> None:
    before = tensors_of(convert(tiny, tmp_path / "before", dtype="float32"))
    frozen, trained = run(tiny, tmp_path / "frozen"), run(tiny, tmp_path / "trained", train_embeddings=True)
    for directory, expected in ((frozen, {WORDS + ".weight"}), (trained, set())):
        after = tensors_of(directory)
        assert {name for name in before if np.array_equal(before[name], after[name])} == expected


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}], ids=str)
def test_mapped_embeddings(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any) -> None:
    opened: list[Any] = []
    open_table = mapped.MappedEmbeddings.open
    monkeypatch.setattr(mapped.MappedEmbeddings, "open", lambda *a: opened.append(a) or open_table(*a))
    resident = run(tiny, tmp_path / "resident", **options)
    assert not opened
    monkeypatch.setattr(mapped, "MAPPED_ABOVE", 0)
    found = run(tiny, tmp_path / "mapped", **options)
    assert len(opened) == 1
    assert (found / "model.safetensors").read_bytes() == (resident / "model.safetensors").read_bytes()
    parameters: Any = tree_flatten(make_run(tiny, **options).learner.model.parameters())
    assert not [name for name, _ in parameters if name.startswith(WORDS)]
    run(tiny, tmp_path / "trained", train_embeddings=True)
    assert len(opened) == 2  # what is trained is in memory


@pytest.mark.parametrize(("bits", "mode"), [(4, "affine"), (8, "affine"), (4, "mxfp4")])
def test_what_was_packed_stays_packed(tiny: Path, tmp_path: Path, bits: int, mode: str) -> None:
    packing = Quantization(32, bits, mode)
    source = convert(tiny, tmp_path / "source", layers=packing, embeddings=packing)
    target = run(source, tmp_path / "target", dtype="float16")
    before, after = open_tensors(source), open_tensors(target)
    assert before.keys() == after.keys()
    for name in before:
        if name.startswith(WORDS):
            assert mx.array_equal(before[name], after[name]), name
        assert before[name].dtype == after[name].dtype
    config = [json.loads((path / "config.json").read_text()) for path in (source, target)]
    assert config[0]["quantization"] == config[1]["quantization"]
    assert config[0]["mlx_rerank"]["packing"] == config[1]["mlx_rerank"]["packing"]
    assert np.isfinite(Reranker(target, device="cpu").score(PAIRS)).all()


def test_a_trimmed_vocabulary_stays_on_record(tiny: Path, tmp_path: Path) -> None:
    source = convert(tiny, tmp_path / "source", trim_vocab=["what is the panda 0123456789", "bear eats sun tea river"])
    target = run(source, tmp_path / "target")
    records = [json.loads((path / "config.json").read_text())["mlx_rerank"] for path in (source, target)]
    assert records[0]["vocabulary"] == records[1]["vocabulary"]


def test_an_existing_output_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputExistsError, match="exists: remove it"):
        train(tmp_path / "no data", tmp_path / "out", model=tmp_path / "no model")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_output_that_appears_meanwhile(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = trainer.save_trained

    def late(target: Path, *rest: Any) -> None:
        target.mkdir()
        (target / "file").touch()
        save(target, *rest)

    monkeypatch.setattr(trainer, "save_trained", late)
    with pytest.raises(OutputError, match="cannot be written"):
        run(tiny, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.training"]


@pytest.mark.parametrize(
    ("data", "dev", "options", "message"),
    [
        ([{"query": "q"}], None, {}, "data holds a dict: give Examples, or the name of a file"),
        ([], None, {}, "there are no queries to train on"),
        ([], None, {"losses": {"distillation": 1.0}}, "there are no queries to train on"),
        ([Example("q", ("a", "b"), (1.0, 1.0))], None, {}, "all documents of 1 queries are labelled 1: give documents"),
        (
            [*EXAMPLES, Example("q", ("a", "b"), (1.0, 0.0))], None, {"losses": {"margin-mse": 1.0, "binary": 1.0}},
            "margin-mse need a teacher's scores, which 1 of 7 queries lack",
        ),
        (EXAMPLES, [], {}, "none of the 0 queries of dev has a relevant document"),
        (EXAMPLES, [Example("q", ("a",), (0.0,))], {}, "none of the 1 queries of dev has a relevant document"),
        (EXAMPLES, None, {"max_length": 65}, "max_length 65 exceeds this model's limit of 64 tokens"),
        (EXAMPLES, None, {"max_length": 4}, "max_length"),
    ],
)  # fmt: skip
def test_refused(tiny: Path, tmp_path: Path, data: Any, dev: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(data, tmp_path / "out", model=tiny, dev=dev, options=TrainingOptions(**options), show_progress=False)
    assert list(tmp_path.iterdir()) == []


def test_labels_may_be_numpy_numbers(tiny: Path, tmp_path: Path) -> None:
    labels, teacher = map(tuple, np.array([[1, 0], [2, 1]], dtype=np.float32))
    data = [Example("panda", ("a", "b"), labels, teacher)]
    plain = [Example("panda", ("a", "b"), (1.0, 0.0), (2.0, 1.0))]
    found = [run(tiny, tmp_path / name, data=rows) for name, rows in (("numpy", data), ("plain", plain))]
    assert len({(path / "model.safetensors").read_bytes() for path in found}) == 1


def test_weights_beyond_float16(tmp_path: Path) -> None:
    tensors = random_tensors(TINY)
    tensors["classifier.out_proj.bias"][:] = 1e5
    source = write_checkpoint(tmp_path / "source", tensors=tensors)
    with pytest.raises(Exception, match="beyond float16's range"):
        run(source, tmp_path / "out", dtype="float16", losses={"listwise": 1.0})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.training", "source"]


@pytest.mark.parametrize("negatives", ["bm25", "model"])
def test_mined_negatives_are_trained_on(tiny: Path, tmp_path: Path, negatives: str) -> None:
    rows = [Example(f"panda {word}", (f"{word} is a panda",), (1.0,)) for word in ("tea", "sun", "river", "cold")]
    options = TrainingOptions(negatives=negatives, batch_size=2)
    target = train(rows, tmp_path / "out", model=tiny, corpus=["panda"], options=options, show_progress=False)
    record = json.loads((target / "config.json").read_text())["mlx_rerank"]["training"]
    assert record["options"]["negatives"] == negatives


def test_a_corpus_is_for_negatives(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"corpus is where hard negatives are taken from: choose TrainingOptions\("):
        train(EXAMPLES, tmp_path / "out", model=tiny, corpus=["panda"])


def test_an_infinite_loss_of_a_skipped_step_is_not_part_of_the_mean() -> None:
    since, step = Since(), Step([], 1, 1, 2, 1, tokens=9, truncated_tokens=3)
    assert since.record() == {}
    since.add(step, Learned(float("inf"), float("inf"), skipped=True))
    assert since.record() == {"skipped_steps": 1, "truncated_tokens": 3}
    for loss in (2.0, 5.0):
        since.add(step, Learned(loss, 1.0))
    assert since.record() == {"loss": 3.5, "skipped_steps": 1, "truncated_tokens": 9}


def test_skipped_steps_are_counted_and_their_loss_is_not(tiny: Path, tmp_path: Path) -> None:
    tensors = random_tensors(TINY)
    tensors["classifier.out_proj.weight"] *= 1e4  # gradients overflow float16 until the scale is small
    source = write_checkpoint(tmp_path / "source", tensors=tensors)
    records: list[dict[str, Any]] = []
    options = TrainingOptions(dtype="float16", batch_size=1, evaluate_every=1, losses={"margin-mse": 1e-3})
    train(
        EXAMPLES, tmp_path / "out", model=source, options=options, report=records.append, show_progress=False,
        dtype="float32",
    )  # fmt: skip
    assert sum(record.get("skipped_steps", 0) for record in records) > 0
    assert all("loss" not in record for record in records if record.get("skipped_steps"))
    json.loads((tmp_path / "out" / "config.json").read_text(), parse_constant=pytest.fail)
