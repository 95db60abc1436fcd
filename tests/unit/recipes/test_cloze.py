"""The scripts in recipes/mini/ that ask for sentences by their own words, and mix groups for the last stage."""

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Recipe = Callable[[str], ModuleType]
GROUP = {"query": "two words", "texts": list("abcdef"), "target": [0.2, 0.1, 0.5, 0.1, 0.1, 0.0], "kind": "sentence"}


def sentence(i: int, language: str = "en") -> str:
    """Nine words of eighty, and a year of its own."""
    words = [
        f"{'bdfgk'[n % 5]}{'aeiou'[n // 5 % 5]}{'lmnr'[n // 25]}{'ao'[n % 2]}"
        for n in random.Random(i).sample(range(80), 9)
    ]
    return f"{language} {' '.join(words)} {1900 + i} Rome."


def treebank(path: Path, language: str, count: int) -> Path:
    blocks = []
    for i in range(count):
        words = sentence(i, language)[:-1].split()
        rows = [f"{n}\t{word}\t_\t{'PROPN' if word[0].isupper() else 'NOUN'}\t_" for n, word in enumerate(words, 1)]
        blocks.append("\n".join([f"# sent_id = n{i:05}", f"# text = {sentence(i, language)}", *rows]))
    path.write_text("\n\n".join(blocks) + "\n\n", encoding="utf-8")
    return path


def test_treebanks_are_read(recipe: Recipe, tmp_path: Path) -> None:
    cloze = recipe("cloze")
    rows = ["1\tTôi\ttôi\tPRON", "2\tủy ban\t_\tNOUN", "3\tLộc\t_\tPROPN", "4\t,\t,\tPUNCT", "5\tba\t_\tNUM"]
    block = "\n".join(["# sent_id = a", "# text =Tôi ủy ban Lộc , ba", *rows])
    (tmp_path / "vi_x-ud-dev.conllu").write_text(f"{block}\n\n# no text\n\n", encoding="utf-8")
    (found,) = cloze.treebank(tmp_path / "vi_x-ud-dev.conllu", "vi")
    assert found.text == "Tôi ủy ban Lộc, ba"
    assert found.words == (("Tôi", "other"), ("ủy ban", "other"), ("Lộc", "name"), ("ba", "number"))
    assert not found.key
    (english,) = cloze.treebank(treebank(tmp_path / "en_pud-ud-test.conllu", "en", 1), "en")
    assert english.key == "n00000"
    assert {word.text: word.kind for word in english.words if word.kind != "other"} == {
        "1900": "number",
        "Rome": "name",
    }


def test_words_keep_their_marks(recipe: Recipe) -> None:
    assert [word.text for word in recipe("cloze")._words("दृश्य स्थिति, खोलें।")] == ["दृश्य", "स्थिति", "खोलें"]


def groups_of(cloze: ModuleType, folder: Path, count: int) -> tuple[Any, list[dict[str, Any]]]:
    pools = [
        cloze.Pool(
            "treebanks", lang, list(cloze.treebank(treebank(folder / f"{lang}_pud-ud-test.conllu", lang, 120), lang))
        )
        for lang in ("en", "de")
    ]
    across = pools[0].groups(count, random.Random(1), pools[1])
    return pools[0].groups(count, random.Random(0)), across


def test_the_first_text_has_the_words_of_the_question(recipe: Recipe, tmp_path: Path) -> None:
    cloze = recipe("cloze")
    groups, _ = groups_of(cloze, tmp_path, 60)
    assert len(groups) > 40
    shared = []
    asks = {word.lower() for kind in cloze.WORDINGS["en"][:4] for ask in kind for word in ask.split()}
    for group in groups:
        assert group["target"] == [1.0, 0, 0, 0, 0, 0]
        assert len(set(group["texts"])) == 6
        asked = set(group["query"].lower().rstrip("?").split()) - asks
        assert len(asked) >= 3
        assert asked <= set(group["texts"][0].lower().rstrip(".").split())
        shared.append(max(len(asked & set(text.lower().split())) for text in group["texts"][1:]))
    assert sum(shared) / len(shared) > 2.1  # by chance it would be 1.5
    assert len({group["query"].split()[0].lower() for group in groups}) > 4


def test_across_languages(recipe: Recipe, tmp_path: Path) -> None:
    _, groups = groups_of(recipe("cloze"), tmp_path, 40)
    assert len(groups) > 20
    for group in groups:
        assert group["lang"] == "en-de"
        assert all(text.startswith("de ") for text in group["texts"])
        numbers = {word for word in group["query"].rstrip("?").split() if any(c.isdigit() for c in word)}
        assert numbers <= set(group["texts"][0].rstrip(".").split())  # it is the translation


def test_sentences_that_say_the_same_are_no_rivals(recipe: Recipe) -> None:
    cloze = recipe("cloze")
    twin = sentence(7).replace("Rome", "Roma")
    found = [
        cloze.Sentence(text, tuple(cloze._words(text)), i) for i, text in enumerate([*map(sentence, range(90)), twin])
    ]
    groups = cloze.Pool("x", "en", found).groups(400, random.Random(3))
    mine = [group for group in groups if group["texts"][0] in (sentence(7), twin)]
    assert mine
    assert all(not {sentence(7), twin} <= set(group["texts"]) for group in mine)


def test_texts_that_are_replaced(recipe: Recipe) -> None:
    mixture = recipe("mixture")
    others = [{"texts": ["x", "y"]}]
    found = [mixture.varied(GROUP, others, random.Random(seed)) for seed in range(400)]
    unrelated = [group for group in found if {"x", "y"} & set(group["texts"])]
    stuffed = [group for group in found if any("words" in text for text in group["texts"])]
    assert 160 < len(unrelated) < 240
    assert 25 < len(stuffed) < 75
    for group in found:
        assert group["texts"][2] == "c"  # the best stays
        assert max(group["target"]) == group["target"][2] > 0.7
        assert sum(group["target"]) == pytest.approx(1, abs=1e-3)
        assert all(share == 0 for text, share in zip(group["texts"], group["target"], strict=True) if len(text) > 1)
    assert GROUP["texts"] == list("abcdef")


def test_stuffed_texts(recipe: Recipe) -> None:
    texts = {recipe("mixture").stuffed("what is it", random.Random(seed)) for seed in range(50)}
    assert "what is it" in texts
    assert {frozenset(text.split()) for text in texts} == {frozenset({"what", "is", "it"})}
    assert {len(text.split()) for text in texts} == {3, 6, 9}


def test_the_mixture(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixture, data = recipe("mixture"), recipe("data")
    kinds = [("sentence", 300), ("parallel", 200)]
    rows = [GROUP | {"kind": kind, "number": i} for kind, count in kinds for i in range(count)]
    for name, content in (("groups", rows), ("cloze", [GROUP | {"kind": "cloze"}] * 900)):
        (tmp_path / name).mkdir()
        data.write_rows(tmp_path / name / "groups-000.jsonl.gz", content)
    monkeypatch.setattr("sys.argv", ["mixture.py", *(str(tmp_path / name) for name in ("groups", "cloze", "out"))])
    mixture.main()
    found = [row for path in (tmp_path / "out").iterdir() for row in data.read_rows(path)]
    counts = {kind: sum(row["kind"] == kind for row in found) for kind in ("sentence", "parallel", "cloze")}
    assert counts["sentence"] == 300
    assert 50 < counts["parallel"] < 110
    assert counts["cloze"] == (300 + counts["parallel"]) // 2
    assert [row["kind"] for row in found[:300]] != ["sentence"] * 300
    assert all(len(row["texts"]) == len(row["target"]) == 6 for row in found)
