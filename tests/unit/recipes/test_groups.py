"""The scripts that make groups: what they are made of, that they repeat, and what is kept out of them."""

import gzip
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from mlx_rerank.train.examples import read_examples

TRAINING = Path(__file__).parents[3] / "recipes" / "mini"
WORDS = ["panda", "bear", "bamboo", "river", "mountain", "winter", "rain", "train", "moon", "zoo"]
LANGS = ("en", "de")


def held_out(identifier: str) -> bool:
    return zlib.crc32(identifier.encode()) % 50 == 0


def sentence(*numbers: int) -> str:
    return " ".join(f"{WORDS[number % 10]} {number}" for number in numbers) + " is what this is about."


def passage_of(i: int) -> str:
    return " ".join(sentence(i, i + j, 7 * i + j) for j in range(5))


def write(path: Path, rows: list[Any]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def question(name: str, source: str, lang: str, i: int, prefix: str, suffix: str = "") -> dict[str, Any]:
    wrong = [f"{prefix}{(i + step) % 120}{suffix}" for step in (1, 2, 3, 5, 8, 13)]
    row = {"_id": name, "text": f"question {name}", "lang": lang, "source": source}
    return row | {"pos": [f"{prefix}{i}{suffix}"], "neg": wrong}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Natural questions in two languages, help in parallel, and its paragraphs; a few of the questions are held out."""
    root = tmp_path_factory.mktemp("sets")
    corpus, rows = [], []
    for lang in LANGS:
        for i in range(120):
            natural, of_help = f"ours/{lang}:d{i}", f"lohelp/{lang}:page{i % 12}#{i}"
            corpus += [{"_id": name, "text": f"{lang} {passage_of(i)}", "lang": lang} for name in (natural, of_help)]
            rows.append(question(f"ours/{lang}:{i}", "ours", lang, i, f"ours/{lang}:d"))
            wrong = [f"lohelp/{lang}:page{n % 12}#{n}" for n in ((i + step) % 120 for step in (1, 2, 3, 5, 8, 13))]
            heading = question(f"lohelp/{lang}:{i}", "lohelp", lang, i, "")
            rows.append(heading | {"pos": [of_help], "neg": wrong})
    pages = [
        [("h" if j % 4 == 0 else "p", {lang: f"{lang} {sentence(i, j, i + j)}" for lang in LANGS}) for j in range(9)]
        for i in range(10)
    ]
    for name, content in (("corpus", corpus), ("train", rows), ("parallel", pages)):
        write(root / f"{name}.jsonl.gz", content)
    return root


def make_groups(sets: Path, out: Path, *arguments: str) -> dict[str, bytes]:
    """Return the content of the files by name."""
    command = [sys.executable, str(TRAINING / "groups.py"), str(sets), str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return {path.name: gzip.decompress(path.read_bytes()) for path in out.iterdir()}


@pytest.fixture(scope="module")
def made(sets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("groups")
    return make_groups(sets, out, "--shards", "2", "--parallel", str(sets / "parallel.jsonl.gz"))


@pytest.fixture(scope="module")
def groups(made: dict[str, bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for content in made.values() for line in content.splitlines()]


def test_a_file_depends_on_its_number_alone(sets: Path, made: dict[str, bytes], tmp_path: Path) -> None:
    pages = ["--parallel", str(sets / "parallel.jsonl.gz")]
    alone = make_groups(sets, tmp_path / "alone", "--start", "1", "--shards", "1", *pages)
    assert alone == {"groups-001.jsonl.gz": made["groups-001.jsonl.gz"]}
    assert made["groups-000.jsonl.gz"] != made["groups-001.jsonl.gz"]


def test_groups(groups: list[dict[str, Any]]) -> None:
    assert {group["kind"] for group in groups} == {"passage", "sentence", "cross", "parallel"}
    for group in groups:
        assert len(group["texts"]) == len(group["target"]) == 6
        assert group["target"] == [1.0, 0, 0, 0, 0, 0]  # the positive first
    assert len({group["number"] for group in groups}) == len(groups)


def test_the_first_text_is_of_the_relevant_passage(groups: list[dict[str, Any]]) -> None:
    natural = [group for group in groups if group["source"] == "ours"]
    assert {group["kind"] for group in natural} == {"passage", "sentence"}
    for group in natural:
        assert group["texts"][0] in f"{group['lang']} {passage_of(int(group['query'].split(':')[1]))}"


def test_questions_that_are_held_out(sets: Path, groups: list[dict[str, Any]]) -> None:
    with gzip.open(sets / "train.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    secret = {row["text"] for row in rows if held_out(row["_id"])}
    asked = {group["query"] for group in groups}
    assert {text.split("/")[0] for text in secret} == {"question ours", "question lohelp"}
    assert not secret & asked
    assert len({row["text"] for row in rows if row["source"] == "ours"} - secret - asked) < 20  # most others are asked


def test_soft_targets(recipe: Any) -> None:
    targets = recipe("targets")
    draft = targets.Draft("sentence", "ours", "en", "q", list("abcdefgh"), right=4)
    scores = [0.80, 0.92, 0.81, 0.79, 0.85, 0.90, 0.70, 0.71]
    group = targets.choose(draft, [0.0] * 8, scores, targets.random.Random(1), 0.4, 0.03)
    assert group["texts"][0] == "b"  # the best of the relevant passage
    assert set(group["texts"][1:3]) < set("acd")
    assert group["texts"][3:] == ["f", "e", "h"]  # the hardest of the others
    assert sum(group["target"]) == pytest.approx(1, abs=3e-4)
    assert group["target"][0] == max(group["target"])
    assert all(share > 0 for share in group["target"])
    assert sum(group["target"][:3]) > 0.6
    hard = targets.choose(draft, [0.0] * 8, scores, targets.random.Random(1), 0.0, 0.03)
    assert hard["target"][3:] == [0, 0, 0]
    assert 0.99 < hard["target"][0] < 1  # at half the temperature, exp(-0.11 / 0.015) of it goes to the next


def test_the_package_reads_groups(made: dict[str, bytes], groups: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "groups.jsonl").write_bytes(b"".join(made.values()))
    examples = read_examples(tmp_path / "groups.jsonl")
    assert [list(example.documents) for example in examples] == [group["texts"] for group in groups]
    assert [list(example.labels) for example in examples] == [group["target"] for group in groups]


def test_what_overlaps_with_an_evaluation_set(recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "Where?"}) + "\n")
    text = "The giant panda lives on bamboo in the mountains of China."
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "d", "text": text}) + "\n")
    evaluation = recipe("natural").Evaluation(tmp_path)
    assert evaluation.overlaps("where?")
    assert evaluation.overlaps("It is said that the GIANT panda  lives on\nbamboo in places.")
    assert not evaluation.overlaps("It is said that the giant panda eats bamboo in the mountains.")


def test_long_contexts_are_cut_outside_the_answer(recipe: Any) -> None:
    context = " ".join(sentence(i, i + 1, i + 2) for i in range(80))
    spans = recipe("natural").spans(context, 1300, 1450)  # the first would end within it
    assert spans[0][0] <= 1300 < 1450 <= spans[0][1]
    assert "".join(context[begin:stop] for begin, stop in sorted(spans)) == context
    assert all(stop - begin <= 1400 for begin, stop in spans)


def test_readers(recipe: Any) -> None:
    sources = recipe("sources")
    answer = {"text": "bamboo", "answer_start": 3}  # it is at 11
    qas = [{"question": "What?", "answers": [answer]}, {"question": "Why?", "answers": [{**answer, "text": "rice"}]}]
    squad = json.dumps({"data": [{"paragraphs": [{"context": "Pandas eat bamboo.", "qas": qas}]}]})
    assert list(sources.squad(squad)) == [("What?", "Pandas eat bamboo.", "bamboo", 11)]
    lines = json.dumps({"question": "What?", "context": "a\nbb\ncc\nd\ne", "answers": [4, 2, 1]})
    assert list(sources.omosqa(lines)) == [("What?", "a\nbb\ncc\nd\ne", "bb\ncc", 2)]
    po = (
        'msgid "Why so?"\nmsgstr "¿Por qué es así?"\n\nmsgid "It is."\nmsgstr "Porque **lo** es, con todo y más `ls`_."'
    )
    (pair,) = sources.python_faq(po)
    assert pair[:2] == ("¿Por qué es así?", "Porque lo es, con todo y más ls.")
    yml = "es:\n faq:\n  what: '¿Qué es esto?'\n  whattxt1: 'Una moneda, <b>nada</b> más que todo eso.'\n  other: x"
    (pair,) = sources.bitcoin_faq(yml)
    assert pair[:2] == ("¿Qué es esto?", "Una moneda, nada más que todo eso.")


def test_files_are_read_at_their_commit(recipe: Any, tmp_path: Path) -> None:
    sources = recipe("sources")
    folder = tmp_path / "ours+set"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps({"question": "one", "context": "x", "answers": [0]}))
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (folder / "a.jsonl").write_text(json.dumps({"question": "two", "context": "x", "answers": [0]}))
    subprocess.run([*git, "commit", "-qam", "two"], check=True)
    source = sources.Source("set", "en", "ours+set", commit, ("a.jsonl",), sources.omosqa)
    assert [pair.question for pair in source.pairs(tmp_path)] == ["one"]
    (folder / ".git").rename(tmp_path / "elsewhere")
    assert [pair.question for pair in source.pairs(tmp_path)] == ["two"]


def test_aligned_paragraphs(recipe: Any, tmp_path: Path) -> None:
    pages = {
        "en-US": '<h1 id="hd_id1">Cells &amp; rows</h1><p id="par_id2" class="x">Press <b>Enter</b>.</p>',
        "de": '<h1 id="hd_id1">Zellen und Zeilen</h1><p id="par_id2">Press Enter.</p><p id="par_id3">Nur hier</p>',
    }
    for name, content in pages.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "page.html").write_text(content)
    found = recipe("parallel").aligned(tmp_path, Path("page.html"), ["en-US", "de", "fr"])
    expected = ("h", {"en": "Cells & rows", "de": "Zellen und Zeilen"}), ("p", {"en": "Press Enter."})
    assert found == [*expected, ("p", {"de": "Nur hier"})]


def test_questions_of_a_sentences_own_words(recipe: Any, sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, data = recipe("last_stage"), recipe("data")
    monkeypatch.setattr(stage, "LANGS", {"en": 1, "de": 2})
    asker = stage.Asker(data.TrainingSets(sets, sets / "parallel.jsonl.gz"), stage.random.Random(0))
    found = [group for group in (asker.group() for _ in range(60)) if group]
    assert {group["lang"] for group in found} == {"en", "de"}
    for group in found:
        assert len(set(group["texts"])) == 6
        words = set(stage.re.findall(r"\w+", group["texts"][0].lower()))
        asked = stage.re.findall(r"\w+", group["query"].lower())
        assert len(words & set(asked)) >= len(set(asked)) - 2  # all but what is asked with


def test_two_texts_of_a_group_are_replaced(recipe: Any) -> None:
    stage = recipe("last_stage")
    group = {"query": "q", "texts": list("abcdef"), "target": [0.2, 0.1, 0.5, 0.1, 0.1, 0.0], "length": 160}
    found = stage.sharpened(group, [{"texts": ["x", "y"]}], stage.random.Random(0))
    assert found["texts"][0] == "c"
    assert set(found["texts"][:4]) <= set("abcdef")
    assert set(found["texts"][4:]) <= {"x", "y"}
    assert found["target"][0] > 0.8
    assert sum(found["target"]) == pytest.approx(1, abs=1e-3)
    assert found["target"][4:] == [0, 0]
    assert (group["texts"], found["query"], found["length"]) == (list("abcdef"), "q", 160)
