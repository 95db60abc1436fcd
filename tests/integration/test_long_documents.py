"""benchmarks/long_documents.py on a small set: how it joins paragraphs, what it counts, and what it writes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import TINY, write_checkpoint

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SUBJECTS = {
    "panda": "Pandas eat bamboo, up to forty kilograms a day.",
    "stove": "The guarantee of the stove lasts ten years.",
    "tides": "Tides are caused by the pull of the Moon on the water of the sea.",
    "train": "The night train to Lisbon leaves at nine from platform four.",
}
QUERIES = {
    "panda": "What do pandas eat?",
    "tides": "What causes the tides?",
    "stove": "How long does the guarantee of the stove last?",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One language in the BEIR layout, with paragraphs of some 40 tokens."""
    root = tmp_path_factory.mktemp("xquad")
    (root / "en").mkdir()
    filler = "It was a quiet day, and the people of the village sat in front of their houses until dark. "
    paragraphs = [{"_id": name, "text": f"{text} {filler}".strip(), "lang": "en"} for name, text in SUBJECTS.items()]
    queries = [{"_id": name, "text": text, "lang": "en"} for name, text in QUERIES.items()]
    for name, rows in (("corpus", paragraphs), ("queries", queries)):
        (root / "en" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    judged = [f"{name}\t{name}\t1" for name in QUERIES]
    (root / "en" / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")
    return root


def run(*arguments: str) -> tuple[dict, str]:
    command = [sys.executable, str(BENCHMARKS / "long_documents.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(Path(arguments[-1]).read_text()), done.stdout


def test_windows_find_the_paragraph_that_answers(data: Path, tmp_path: Path) -> None:
    short = ["--max-length", "110"]  # two paragraphs fit, and three do not, as longer ones do in 512
    found, printed = run(str(data), *short, "--words", "50", "--output", str(tmp_path / "found.json"))
    assert found["counts"] == [
        {"language": "en", "documents": 2, "asked": 3, "first_alone": 3, "found": 3, "part": 0, "cut": 0, "unread": 0}
    ]
    assert "3 (100%)" in printed
    found, _ = run(str(data), *short, "--words", "9999", "--queries", "3", "--output", str(tmp_path / "found.json"))
    [count] = found["counts"]
    assert (count["documents"], count["first_alone"], count["found"]) == (1, 3, 3)
    assert (count["cut"], count["unread"]) == (3, 1)  # what 110 tokens do not reach


def test_what_length_costs(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", TINY | {"max_position_embeddings": 514})
    arguments = ["--cost", "--model", str(model), "--lengths", "512", "1024", "--rounds", "1"]
    short, long = run(*arguments, "--output", str(tmp_path / "cost.json"))[0]["cost"]
    assert short["in one piece"]["tokens"] == 512
    assert long["in windows"]["tokens"] > 1024
    assert long["in windows"]["seconds"] > 0
    assert "in one piece" not in long  # the model has no positions for it
