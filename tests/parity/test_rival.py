"""The recipe of the next model: its encoder, its targets, what is held out, and that a run goes on as if never cut."""

import gzip
import json
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

WORDS = ["panda", "bear", "the", "what", "is", "eat", "winter", "rain", "zoo", "moon", "river", "train"]


def text_of(i: int, lang: str) -> str:
    lines = (" ".join(WORDS[(i * step + j) % 12] for j in range(6)) + f" {lang} {i}" for step in (1, 5, 7))
    return ". ".join(lines) + "."


def row_of(source: str, lang: str, i: int) -> dict[str, Any]:
    name = f"{source}/{lang}:page#{i}" if source == "lohelp" else f"{source}/{lang}:d{i}"
    wrong = [name.replace(f"#{i}", f"#{n}").replace(f":d{i}", f":d{n}") for n in ((i + k) % 60 for k in range(1, 7))]
    row = {"_id": f"{name}:h" if source == "lohelp" else f"{source}/{lang}:{i}", "lang": lang, "source": source}
    return row | {"text": f"what is {WORDS[i % 12]} {source} {lang} {i}", "pos": [name], "neg": wrong}


@pytest.fixture
def sets(tmp_path: Path, recipe: Any) -> Path:
    """Natural questions and headings in two languages, some held out, and aligned pages."""
    licensed, data = recipe("licensed"), recipe("data")
    names = [("ours", "en"), ("ours", "de"), ("lohelp", "en"), ("lohelp", "de"), ("lohelp", "fr"), ("heq_val", "he")]
    questions = [row_of(*name, i) for name in names for i in range(60)]
    texts = [(row["pos"][0], text_of(i % 60, row["lang"]), row["lang"]) for i, row in enumerate(questions)]
    corpus = [dict(zip(("_id", "text", "lang"), row, strict=True)) for row in texts]
    parts = licensed.prepare(questions, corpus, None)
    for name, rows in zip(("train", "held-out", "corpus"), parts, strict=True):
        data.write_rows(tmp_path / f"{name}.jsonl.gz", rows)
    page = [("p", {lang: text_of(i, lang) for lang in ("en", "de", "fr")}) for i in range(12)]
    data.write_rows(tmp_path / "pages.jsonl.gz", [page, page[::-1]])
    return tmp_path


def rows_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def test_the_encoder_is_transformers_own(torch: ModuleType, recipe: Any, tiny: Path) -> None:
    model, encoder = recipe("train_mini").load(tiny).eval(), recipe("encoder")
    rng = np.random.default_rng(0)
    rows = [[0, *rng.integers(5, 100, n).tolist(), 2] for n in rng.integers(1, 40, 37)]
    packed, back = encoder.pack(rows)
    assert len(packed.ids) == sum(map(len, rows))
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=1)
    expected = model(input_ids=ids, attention_mask=(ids != 1).long()).logits[:, 0]
    found = encoder.logits_of(model, packed)[back]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    names, weights = zip(*[item for item in model.named_parameters() if item[1].requires_grad], strict=True)
    both = (torch.autograd.grad((logits * torch.linspace(-1, 1, 37)).sum(), weights) for logits in (found, expected))
    for name, ours, theirs in zip(names, *both, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3, msg=name)


def test_targets(torch: ModuleType, recipe: Any) -> None:
    objective = recipe("objective")
    group = {"prior": [0.80, 0.86, 0.84], "right": [1.0, 0.0, 0.0], "bonus": 4.0, "trust": 1.0}
    alone, told = (objective.targets([group], labels)[0] for labels in (0, 1))
    assert alone.argmax() == 1
    assert told.argmax() == 0
    torch.testing.assert_close(torch.log(told[1] / told[2]), torch.tensor(0.02 / objective.TEMPERATURE))
    assert told.sum() == pytest.approx(1)
    untold = objective.targets([group | {"trust": 0.0}])[0]
    assert untold[1] == untold[2]
    assert objective.loss_of(told.log()[None], told[None], binary=0) == pytest.approx(0, abs=1e-6)
    assert objective.loss_of(alone.log()[None], told[None], binary=0) > 0.5


def test_what_is_held_out_and_dropped(recipe: Any, sets: Path) -> None:
    licensed, data = recipe("licensed"), recipe("data")
    trained, kept = (rows_of(sets / f"{name}.jsonl.gz") for name in ("train", "held-out"))
    assert {row["source"] for row in trained} == {"ours", "lohelp"}
    of_help = [{licensed.name_of(row["_id"]) for row in rows if row["source"] == "lohelp"} for rows in (trained, kept)]
    assert of_help[1]
    assert not of_help[0] & of_help[1]  # in no language
    loaded = data.TrainingSets(sets)
    asked = {question.id for of_source in loaded.natural.values() for question in of_source}
    assert asked
    assert not asked & {row["_id"] for row in kept}


def test_chinese_is_simplified(recipe: Any) -> None:
    class Converter:
        def convert(self, text: str) -> str:
            return text.upper()

    rows = [{"_id": f"drcd_dev/zh-Hant:{i}", "text": "q", "lang": "zh-Hant", "source": "drcd_dev"} for i in range(60)]
    corpus = [{"_id": f"drcd_dev/zh-Hant:d{i}", "text": "text", "lang": "zh-Hant"} for i in range(9)]
    links = {"pos": ["drcd_dev/zh-Hant:d0"], "neg": [f"drcd_dev/zh-Hant:d{i}" for i in range(1, 9)]}
    trained, kept, passages = recipe("licensed").prepare([row | links for row in rows], corpus, Converter())
    assert len(trained) == 2 * (60 - len(kept))
    made = [row for row in trained if row["lang"] == "zh"]
    known = {row["_id"]: row["text"] for row in passages}
    assert {known[i] for row in made for i in row["pos"] + row["neg"]} == {"TEXT"}
    assert not {row["_id"].removeprefix("simplified-") for row in made} & {row["_id"] for row in kept}


def test_groups(recipe: Any, sets: Path) -> None:
    data, kinds = recipe("data"), recipe("kinds")
    loaded = data.TrainingSets(sets)
    loaded.pages = kinds.joined(list(data.read_rows(sets / "pages.jsonl.gz")))
    makers = [kinds.Kinds(loaded, 1) for _ in range(2)]
    made = [makers[0].made(n) for n in range(200)]
    assert made[150:] == [makers[1].made(n) for n in range(150, 200)]
    assert {group.kind for group in made} == set(kinds.MIX)
    kept = {row["text"] for row in rows_of(sets / "held-out.jsonl.gz") if row["source"] == "ours"}
    for group in made:
        row = kinds.group_of(group, [0.8] * 6)
        assert len(row["texts"]) == len(row["prior"]) == len(row["right"]) == 6
        assert row["right"][0] == 1 > row["right"][-1]
        assert group.kind in ("claim", "cross", "parallel") or group.source != "ours" or group.query not in kept


def test_repeated_words_are_put_last(recipe: Any) -> None:
    kinds = recipe("kinds")
    made = kinds.Made("sentence", "ours", "en", "what is b", ["a b"], ["b what is b is what", "what is it"], 3.0)
    assert kinds.group_of(made, [0.8, 0.95, 0.85])["prior"] == pytest.approx([0.8, 0.8 - kinds.BELOW, 0.85])


def test_vectors_are_kept(torch: ModuleType, recipe: Any, tiny: Path, tmp_path: Path) -> None:
    rival = recipe("rival")
    first = rival.Rival(tiny, tmp_path / "kept" / "vectors.bin")
    first.read(["what is a panda"], ["the bear", "a panda in the river"])
    ids = torch.tensor([Tokenizer.from_file(str(tiny / "tokenizer.json")).encode("passage: the bear").ids])
    with torch.inference_mode():
        mean = first._model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.mean(1)[0]
    mean = torch.nn.functional.normalize(mean, dim=0).numpy()
    np.testing.assert_allclose(first.kept["passage: the bear"], mean, atol=1e-3)
    found = first.cosines("what is a panda", ["the bear", "a panda in the river"])
    assert all(-1 <= value < 1.001 for value in found)
    with (tmp_path / "kept" / "vectors.bin").open("ab") as file:
        file.write(b"cut off")
    again = rival.Rival(tiny, tmp_path / "kept" / "vectors.bin")
    again._model = None  # what was read is not read again
    again.read(["what is a panda"], ["the bear"])
    assert again.cosines("what is a panda", ["the bear", "a panda in the river"]) == found


def options(sets: Path, tiny: Path, out: Path, **changed: Any) -> Namespace:
    given = {"steps": 7, "decay": 2, "warmup": 3, "lr": 1e-3, "frozen": 1, "save": 1e9, "judge": 100}
    return Namespace(start=tiny, out=out, data=sets, dtype="float32", seed=1, **(given | changed))


def test_an_interrupted_run_comes_to_the_same_weights(
    torch: ModuleType, recipe: Any, sets: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_run, data, kinds, mini = (recipe(name) for name in ("long_run", "data", "kinds", "train_mini"))
    monkeypatch.setattr(long_run, "GROUPS", 2)
    monkeypatch.setattr(long_run, "POOL", 3)
    monkeypatch.setattr(kinds, "SHORT", 48)
    monkeypatch.setattr(kinds, "LONG", 48)
    rival = recipe("rival").Rival(tiny, tmp_path / "vectors.bin")

    def pools() -> Any:
        tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
        return Short(kinds.Kinds(data.TrainingSets(sets), 1), rival, tokenizer)

    class Short(long_run.Pools):
        def tokens(self, group: dict[str, Any]) -> list[list[int]]:
            return super().tokens(group | {"length": 48})

    class KilledError(Exception):
        pass

    class Dying(long_run.Run):
        def save(self) -> None:
            super().save()
            if self.step == 4:
                raise KilledError

    long_run.Run(options(sets, tiny, tmp_path / "whole"), mini.load(tiny)).train(pools())
    with pytest.raises(KilledError):
        Dying(options(sets, tiny, tmp_path / "cut", judge=4), mini.load(tiny)).train(pools())
    long_run.Run(options(sets, tiny, tmp_path / "cut"), mini.load(tiny)).train(pools())
    whole, cut = (torch.load(tmp_path / name / "state.pt") for name in ("whole", "cut"))
    assert whole["step"] == cut["step"] == 7
    for key in ("model", "average"):
        for name, weight in whole[key].items():
            assert torch.equal(weight, cut[key][name]), name
    saved = mini.load(tmp_path / "cut" / "average")
    name = "classifier.dense.weight"
    assert torch.equal(dict(saved.named_parameters())[name].half(), whole["average"][name].half())


def test_held_out_groups(
    torch: ModuleType, recipe: Any, sets: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    against, data = recipe("against_rival"), recipe("data")
    assert against.reciprocal_rank([0.1, 0.3, 0.2], [0, 0, 1]) == 0.5
    assert against.reciprocal_rank([0.3, 0.3], [1, 0]) == 0.5  # a tie is no merit
    monkeypatch.setattr(against, "LENGTH", 48)
    rows = [data.Question(*(row[key] for key in ("_id", "text", "lang", "source", "pos", "neg")))
            for row in rows_of(sets / "held-out.jsonl.gz")]  # fmt: skip
    groups = against.with_scores(
        against.held_groups(data.TrainingSets(sets), rows), recipe("rival").Rival(tiny, tmp_path / "vectors.bin")
    )
    assert {"passage", "sentence"} <= {group["kind"] for group in groups}
    data.write_rows(tmp_path / "held.jsonl.gz", groups)
    held = against.Held.read(tmp_path / "held.jsonl.gz", tiny)
    model = recipe("train_mini").load(tiny).eval()
    found = against.scores(model, held, torch.float32)
    assert [len(values) for values in found] == [len(group["texts"]) for group in groups]
    assert against.judged(model, held).count("passage 0.") + against.judged(model, held).count("passage 1.") == 3
