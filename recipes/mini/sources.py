"""Public question sets, pinned to a commit, and how their files are read."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class Pair(NamedTuple):
    """A question and the text that answers it.

    Args:
        question: what is asked.
        context: any length.
        answer: a part of the context.
        start: place of the answer in the context, in characters.
    """

    question: str
    context: str
    answer: str
    start: int


class Source(NamedTuple):
    """Files of one language in a repository.

    Args:
        name: of the set.
        lang: of questions and contexts.
        repository: OWNER+NAME.
        commit: that the files are read at.
        paths: of the files.
        reader: yields what a file holds.
    """

    name: str
    lang: str
    repository: str
    commit: str
    paths: tuple[str, ...]
    reader: Callable[[str], Iterator[Pair]]

    def pairs(self, clones: Path) -> list[Pair]:
        """Return what all files hold.

        Args:
            clones: directory with a git clone, bare or not, or the plain files of each repository.
        """
        return [pair for path in self.paths for pair in self.reader(self._text(clones / self.repository, path))]

    def _text(self, folder: Path, path: str) -> str:
        """Return the text of a file: at the commit in a git repository, else as it is."""
        if (folder / ".git").exists() or (folder / "HEAD").is_file():
            git = ["git", "-C", str(folder), "show", f"{self.commit}:{path}"]
            return subprocess.run(git, check=True, stdout=subprocess.PIPE).stdout.decode("utf-8-sig")
        return (folder / path).read_text(encoding="utf-8-sig")


def squad(text: str) -> Iterator[Pair]:
    """Read SQuAD's JSON. A wrong offset is put right where the answer is elsewhere; else the question is dropped."""
    for article in json.loads(text)["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                if not question.get("is_impossible") and question["answers"]:
                    yield from _located(question["question"], paragraph["context"], question["answers"][0])


def _located(question: str, context: str, answer: dict[str, Any]) -> Iterator[Pair]:
    """Yield a pair if the context has the answer; the place nearest to the one given is taken."""
    text, start = answer["text"], int(answer["answer_start"])
    if context[start : start + len(text)] != text:
        found = [match.start() for match in re.finditer(re.escape(text), context)]
        start = min(found, key=lambda place: abs(place - int(answer["answer_start"])), default=-1)
    if text.strip() and start >= 0:
        yield Pair(question, context, text, start)


def omosqa(text: str) -> Iterator[Pair]:
    """Read OMoS-QA, whose answers are numbers of lines; the first run of lines counts."""
    for row in map(json.loads, text.splitlines()):
        lines, numbers = row["context"].split("\n"), sorted(row["answers"])
        if not numbers or numbers[-1] >= len(lines):
            continue
        first = last = numbers[0]
        while last + 1 in numbers:
            last += 1
        start = sum(len(line) + 1 for line in lines[:first])
        yield Pair(row["question"], row["context"], "\n".join(lines[first : last + 1]), start)


def python_faq(text: str) -> Iterator[Pair]:
    """Read a translated FAQ of Python's documentation (.po): a title that is a question, and up to four paragraphs."""
    question, body = "", list[str]()
    for block in [*text.split("\n\n"), 'msgid "?"\nmsgstr "?"']:  # the last question ends where another begins
        fresh = "#, fuzzy" not in block and "#~" not in block
        found = re.search(r"^msgid (.*?)^msgstr (.*)", block, re.MULTILINE | re.DOTALL) if fresh else None
        parts = found.groups() if found else ("", "")
        source, target = (_plain("".join(re.findall(r'"(.*)"', part))) for part in parts)
        if source.endswith("?") and len(source) < 150:
            yield from _whole(question, "\n".join(body))
            question, body = target, []
        elif question and len(body) < 4 and target and re.search(r"[.:!)]$", source):
            body.append(target)


def bitcoin_faq(text: str) -> Iterator[Pair]:
    """Read the FAQ of bitcoin.org (.yml): a key is a question, and keytxt1, keytxt2, ... are its paragraphs."""
    texts: dict[str, str] = next(iter(yaml.safe_load(text).values())).get("faq", {})
    for key, question in texts.items():
        body = (v for k, v in texts.items() if re.fullmatch(re.escape(key) + r"(txt|list)\d+", k) and v)
        yield from _whole(_plain(question or ""), _plain("\n".join(body)))


def _plain(text: str) -> str:
    """Return a text without the marks of HTML, Markdown and reStructuredText."""
    text = text.replace('\\"', '"').replace("\\\\", "\\")
    text = re.sub(r"<(?!http)/?[a-z][^>]*>|\*\*|(?<=\W)\*|\*(?=\W)", "", text)
    text = re.sub(r":[a-z:]+:`[!~]?([^`<]*?)(\s*<[^`]*>)?`", r"\1", text)
    return re.sub(r"`+([^`<]*?)(\s*<[^`]*>)?`+_*", r"\1", text).strip()


def _whole(question: str, answer: str) -> Iterator[Pair]:
    """Yield a question whose answer is all of the context, unless one of them is very short."""
    if len(question) > 9 and len(answer) > 29:
        yield Pair(question, answer, answer, 0)


_ENELPI = ("1299-1451/train_data", "1451-1579/train_data", "1579-1792/train_data_v1", "1792-1922/train_data")
_FAQS = ("design", "extending", "general", "gui", "installed", "library", "programming", "windows")
_TRANSLATED = (
    ("es", "python+python-docs-es", "91f4ccc0baa8c7cbeb739e696c641388264caa30"),
    ("el", "pygreece+python-docs-gr", "aaaa28612a69abd4ccb6db39b1a6825c8bb5480c"),
    ("zh", "python+python-docs-zh-cn", "d80710a072bf29fee352a130c6c3b9e477f2e8d6"),  # branch 3.12
)
_BITCOIN = ("en", "es", "el", "de", "zh_CN", "zh_TW", "ru", "tr", "hi", "ar", "fr", "it", "ro", "id", "ja", "ko")
_CHINESE = {"zh_CN": "zh", "zh_TW": "zh-Hant"}
SOURCES = (
    Source(
        "enelpi", "tr", "okanvk+Turkish-Reading-Comprehension-Question-Answering-Dataset",
        "c6852f86f25e093ead13d8e2d0d87d92deadf727",
        tuple(f"data/2020-enelpi-squad-dataset/{path}.json" for path in _ENELPI), squad,
    ),
    *(
        Source(
            "omosqa", lang, "digitalfabrik+integreat-qa-dataset", "6377c1b543048acb93945562f308095451f579c4",
            (f"dataset/languages/{lang}/splits/train_{lang}.jsonl",), omosqa,
        )
        for lang in ("de", "en", "fr", "ar", "uk")
    ),
    Source(
        "covidqa", "en", "deepset-ai+COVID-QA", "fb2eb5e249618457e5359806601086c635c8eb8f",
        ("data/question-answering/200423_covidQA.json",), squad,
    ),
    *(
        Source("pythonfaq", lang, repository, commit, tuple(f"faq/{name}.po" for name in _FAQS), python_faq)
        for lang, repository, commit in _TRANSLATED
    ),
    *(
        Source(
            "bitcoinfaq", _CHINESE.get(lang, lang), "bitcoin-dot-org+bitcoin.org",
            "39779fb9594d4bd941c2baecb3d64b292a76f8f5", (f"_translations/{lang}.yml",), bitcoin_faq,
        )
        for lang in _BITCOIN
    ),
)  # fmt: skip
