"""JSON, CSV and TSV by content and by name; never a silent misreading."""

import json
from pathlib import Path

import pytest

from mlx_rerank.errors import InputError
from mlx_rerank.pairs.files import read_document, read_documents, read_pairs

PANDA, TEA = "Pandas eat bamboo.", "Tea, hot; or not."
OBJECTS = [{"text": PANDA}, {"text": TEA}]
ANYWHERE = {  # contents that are known whatever the file is called
    "array": json.dumps(OBJECTS),
    "pretty array": json.dumps(OBJECTS, indent=2).replace("\n", "\r\n"),
    "array of texts": json.dumps([PANDA, TEA]),
    "lines": "\n\n".join(map(json.dumps, OBJECTS)),
    "pretty objects": "\n".join(json.dumps(row, indent=1) for row in OBJECTS),
    "request": json.dumps({"query": "q", "documents": [PANDA, {"content": TEA}]}),
    "passages": json.dumps({"passages": OBJECTS}),
    "other keys": json.dumps({"passage": PANDA}) + "\n" + json.dumps({"Body": TEA, "text": None}),
    "csv": f'id,text\n1,{PANDA}\n2,"{TEA}"\n',
    "semicolons": f'id;Content\r\n1;{PANDA}\r\n2;"{TEA}"\r\n',
    "pandas": f',text\n0,{PANDA}\n1,"{TEA}"\n',
    "points": f'Nr.;2023;Text\n1;x;{PANDA}\n2;y;"{TEA}"\n',
    "tsv": f"id\tpassage\n1\t{PANDA}\n2\t{TEA}\n",
    "old line ends": f"id\tdocument\r1\t{PANDA}\r2\t{TEA}\r",
}
BY_NAME = {"a.csv": f'{PANDA}\n"{TEA}"\n', "b.csv": f'text\n{PANDA}\n"{TEA}"\n', "a.tsv": f"{PANDA}\n{TEA}\n"}


def write(path: Path, text: str) -> str:
    path.write_bytes(text.encode())
    return str(path)


@pytest.mark.parametrize("name", ["in", "in.txt"])
@pytest.mark.parametrize("kind", ANYWHERE)
def test_by_content(tmp_path: Path, name: str, kind: str) -> None:
    found = read_documents([write(tmp_path / name, ANYWHERE[kind])])
    assert [row["text"] for row in found] == [PANDA, TEA]


@pytest.mark.parametrize("name", BY_NAME)
def test_by_name(tmp_path: Path, name: str) -> None:
    assert read_documents([write(tmp_path / name, BY_NAME[name])]) == OBJECTS


@pytest.mark.parametrize(
    "text",
    [
        "[1] See below.\n[2] Tea.\n",
        "[draft\nTea.\n",
        "{name} says\nTea.\n",
        '"Tea," she said.\n"No."\n',
        "Text, content and form\nTea, hot\n",
        "text\nTea\n",
        "query\ta document\n",
        'q\tone "quoted" word\n',
        "tea, milk\nbamboo, leaves\n",
    ],
)
@pytest.mark.parametrize("name", ["in", "in.txt"])
def test_texts_that_begin_like_something_else_stay_lines(tmp_path: Path, name: str, text: str) -> None:
    assert [row["text"] for row in read_documents([write(tmp_path / name, text)])] == text.splitlines()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("in", '[{"text": "a"}, {"te', ":1 is not JSON: .*--format lines"),
        ("in.txt", '[{"text": "a"}, {"te', ":1 is not JSON"),
        ("in", "[{'text': 'a'}]", ":1 is not JSON"),
        ("in", '["a", "b"', ":1 is not JSON"),
        ("a.json", "Tea.", ":1 is not JSON"),
        ("a.json", "5", ":1 is a JSON int, not an object or a text"),
        ("a.json", '["a", null]', r"\[1\] is a JSON NoneType"),
        ("a.json", '{"name": "a"}', r"keys are \['name'\]: rename one to 'text'"),
        ("a.json", '{"passage": "a", "body": "b"}', r"several names, \['passage', 'body'\]: choose with --column"),
        ("a.csv", "nr,inhalt\n1,Tea is hot\n", r"may begin with a headline, \['nr', 'inhalt'\]: choose with --column"),
        ("in", "nr,inhalt\n1,Tea is hot\n", "may begin with a headline"),
        ("a.csv", "review\nTea is hot\n", r"may begin with a headline, \['review'\]"),
        ("a.csv", "1,Tea is hot\n", r"keys are \['1', '2'\]: write a headline with 'text'"),
        ("a.csv", "id,title\n1,Tea is hot\n", r"keys are \['id', 'title'\]"),
        ("a.csv", "text,text\na,b\n", "two columns of one name"),
        ("a.csv", "id,text\n1,Tea, hot\n", ":2 has more fields than the headline: quote texts"),
        ("a.csv", "1;Tea, hot\n", "may have ',' or ';' between fields"),
        ("a.csv", "Tea, hot\nTea\n", "no headline, and records of different numbers of fields"),
        ("a.csv", 'id,text\n1,"Tea\n', "cannot be read: line"),
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_documents([write(tmp_path / name, text)])


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("nr,inhalt\n1,Tea\n", "inhalt"),
        ("1,Tea\n", "2"),
        ("id,text\nTea,x\n", "1"),
        ('{"text": "x", "answer": "Tea"}', "answer"),
    ],
)
@pytest.mark.parametrize("name", ["in", "in.csv"])
def test_columns(tmp_path: Path, name: str, text: str, column: str) -> None:
    form = "json" if text.startswith("{") else "auto"
    [found] = read_documents([write(tmp_path / name, text)], form, column)
    assert found["text"] == "Tea"
    with pytest.raises(InputError, match=r"--column .* is for objects and tables"):
        read_documents([str(tmp_path / name)], "lines", column)


def test_several_files(tmp_path: Path) -> None:
    names = [write(tmp_path / "a.json", ANYWHERE["array"]), write(tmp_path / "b.txt", f"{TEA}\n{TEA}")]
    names.append(write(tmp_path / "c.csv", ANYWHERE["csv"]))
    assert [row["text"] for row in read_documents(names)] == [PANDA, TEA, f"{TEA}\n{TEA}", PANDA, TEA]
    assert read_documents(names[:2], "files")[0] == {"id": names[0], "text": ANYWHERE["array"]}


def test_long_fields(tmp_path: Path) -> None:
    long = "a, " * 100_000
    assert read_documents([write(tmp_path / "a.csv", f'id,text\n1,"{long}"\n')])[0]["text"] == long


def test_one_document(tmp_path: Path) -> None:
    text = "Pandas eat.\r\n\r\n[Tea]\n"
    assert read_document(write(tmp_path / "a.txt", text)) == text
    assert read_document(write(tmp_path / "a.json", '[{"content": "Tea"}]')) == "Tea"
    assert read_document(str(tmp_path / "a.json"), "files") == '[{"content": "Tea"}]'
    with pytest.raises(InputError, match="holds 2 documents: give one document"):
        read_document(write(tmp_path / "b", ANYWHERE["array"]))
    with pytest.raises(InputError, match="holds no text"):
        read_document(write(tmp_path / "b", "\n"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("in", json.dumps([["q", PANDA], ["q", TEA]])),
        ("in", json.dumps(["q", PANDA]) + "\n" + json.dumps(["q", TEA])),
        ("in", json.dumps([{"query": "q", "document": PANDA}, {"question": "q", "text": TEA}])),
        ("in", json.dumps({"query": "q", "documents": [PANDA, {"text": TEA}]})),
        ("in", f"query\tdocument\nq\t{PANDA}\nq\t{TEA}\n"),
        ("in", f'n;question;answer\n1;q;{PANDA}\n2;q;"{TEA}"\n'),
        ("in.csv", f'q,{PANDA}\nq,"{TEA}"\n'),
        ("in", f"q\t{PANDA}\rq\t{TEA}\r"),
    ],
)
def test_pairs(tmp_path: Path, name: str, text: str) -> None:
    assert read_pairs(write(tmp_path / name, text)) == [("q", PANDA), ("q", TEA)]


def test_a_query_may_be_the_name_of_a_column(tmp_path: Path) -> None:
    rows = [("query", f"A document of words, {'and more ' * 20}"), ("text", "Tea is hot.")]
    assert read_pairs(write(tmp_path / "in", "".join(f"{q}\t{d}\n" for q, d in rows))) == rows


def test_columns_of_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "nr,frage,antwort\n1,q,Tea is hot\n")
    for columns in (["frage", "antwort"], ["Frage", "3"]):
        assert read_pairs(path, "auto", columns) == [("q", "Tea is hot")]
    with pytest.raises(InputError, match="may begin with a headline"):
        read_pairs(path)
    with pytest.raises(InputError, match="given twice, for query and document, and not 1 times"):
        read_pairs(path, "auto", ["frage"])
    with pytest.raises(InputError, match="--format lines is for documents"):
        read_pairs(path, "lines")
