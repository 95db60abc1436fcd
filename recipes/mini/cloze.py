"""Questions made from sentences, in languages that have few questions which people asked.

    python recipes/mini/cloze.py DATA TREEBANKS EVALUATION OUT --parallel parallel.jsonl.gz

A name, a number or a few other words of a sentence become a question word, and some of the rest is left out. The
sentence is the answer; its rivals are its neighbours and what BM25 finds for the question in the same texts. Sentences
are those of the help, and of treebanks (`LANG_NAME-ud-*.conllu`, Universal Dependencies). Where treebanks are aligned,
some groups have their texts in another language than the question.

Source: Lewis et al. 2019, "Unsupervised Question Answering by Cloze Translation" (arXiv 1906.04980).
"""

import argparse
import collections
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data import HELP, Group, TrainingSets, sentences, terms, write_groups
from natural import Evaluation
from targets import SIZE

from mlx_rerank.train.negatives import bm25

COUNTS = {
    "vi": 2400, "el": 2200, "es": 1200, "zh": 1200, "th": 800, "de": 500, "en": 300, "ru": 300, "hi": 300,
    "tr": 200, "ar": 200,
}  # fmt: skip
ACROSS = 900  # groups whose texts are in another language
PASSAGES = 4000  # of the help, in one language
FEWEST_WORDS, MOST_WORDS = 6, 60  # of a sentence that is asked for
FEWEST_ASKED = 3  # words beside the question word
ALIKE = 0.6  # share of terms in common from which two sentences say the same
DEPTH = 16  # of BM25's ranking
SPACELESS = ("zh", "th")
SEGMENTED = ("vi", *SPACELESS)  # languages whose words are taken from the treebank: spaces do not tell them
TIMES = re.compile(r"1\d{3}|20\d\d")


class Wording(NamedTuple):
    """How a language asks.

    Args:
        time: question words for a year.
        number: for another number.
        name: for a name.
        other: for anything else.
        end: of a question.
        first: whether the question word comes first; else it stands where the answer does.
    """

    time: tuple[str, ...]
    number: tuple[str, ...]
    name: tuple[str, ...]
    other: tuple[str, ...]
    end: str = "?"
    first: bool = True


WORDINGS = {
    "vi": Wording(
        ("khi nào", "năm nào"), ("bao nhiêu", "mấy"), ("ai", "nào", "đâu", "cái gì"),
        ("gì", "như thế nào", "cái gì", "điều gì", "tại sao"), first=False,
    ),
    "el": Wording(
        ("Πότε", "Ποια χρονιά"), ("Πόσα", "Πόσοι", "Πόσες"), ("Ποιος", "Ποια", "Πού", "Ποιο"),
        ("Τι", "Ποιο", "Ποια", "Πώς", "Γιατί"), end=";",
    ),
    "es": Wording(
        ("¿Cuándo", "¿En qué año"), ("¿Cuántos", "¿Cuántas"), ("¿Quién", "¿Dónde", "¿Qué"),
        ("¿Qué", "¿Cuál", "¿Cómo", "¿Por qué"),
    ),
    "zh": Wording(
        ("什么时候", "哪一年"), ("多少", "几"), ("谁", "哪里", "哪个", "什么"), ("什么", "怎么", "为什么"),
        end="？", first=False,
    ),
    "th": Wording(
        ("เมื่อใด", "ปีใด"), ("เท่าไหร่", "กี่"), ("ใคร", "ที่ไหน", "อะไร"), ("อะไร", "อย่างไร", "ทำไม"),
        end="", first=False,
    ),
    "de": Wording(("Wann", "In welchem Jahr"), ("Wie viele",), ("Wer", "Wo", "Welche"), ("Was", "Wie", "Warum")),
    "en": Wording(("When", "In what year"), ("How many",), ("Who", "Where", "Which"), ("What", "How", "Why")),
    "ru": Wording(("Когда", "В каком году"), ("Сколько",), ("Кто", "Где", "Какой"), ("Что", "Как", "Почему")),
    "hi": Wording(("कब", "किस वर्ष"), ("कितने",), ("कौन", "कहाँ", "किस"), ("क्या", "कैसे", "क्यों"), first=False),
    "tr": Wording(
        ("ne zaman", "hangi yılda"), ("kaç",), ("kim", "nerede", "hangi"), ("ne", "nasıl", "neden"), first=False,
    ),
    "ar": Wording(("متى", "في أي عام"), ("كم",), ("من", "أين", "أي"), ("ما", "كيف", "لماذا"), end="؟"),
}  # fmt: skip


class Word(NamedTuple):
    """A word and what it is: "number", "name" or "other"."""

    text: str
    kind: str


class Sentence(NamedTuple):
    """A sentence of some text.

    Args:
        text: as it is written.
        words: without marks.
        passage: a number that its neighbours share.
        key: that its translations share; empty where there are none.
    """

    text: str
    words: tuple[Word, ...]
    passage: int
    key: str = ""


def treebank(path: Path, lang: str) -> Iterator[Sentence]:
    """Yield the sentences of a CoNLL-U file; five in a row are neighbours, unless they have translations."""
    for number, block in enumerate(path.read_text(encoding="utf-8").strip().split("\n\n")):
        found = re.search(r"^# text ?= ?(.+)$", block, re.MULTILINE)
        if not found:
            continue
        text = re.sub(r"\s+([,.;:!?»)”])", r"\1", re.sub(r"([«(“])\s+", r"\1", found[1].strip()))
        rows = [line.split("\t") for line in block.splitlines() if line[0].isdigit()]
        aligned = re.search(r"^# sent_id = ([nw]\d+)$", block, re.MULTILINE) if "_pud-" in path.name else None
        key = aligned[1] if aligned else ""
        words = tuple(_tagged(rows)) if lang in SEGMENTED else tuple(_words(text))
        yield Sentence(text, words, -number if key else number // 5, key)


def _tagged(rows: list[list[str]]) -> Iterator[Word]:
    """Yield the words of a treebank's rows by their parts of speech."""
    kinds = {"PROPN": "name", "NUM": "number"}
    for row in rows:
        if re.search(r"\w", row[1]):
            yield Word(row[1], "number" if re.search(r"\d", row[1]) else kinds.get(row[3], "other"))


def _words(text: str) -> Iterator[Word]:
    """Yield the words of a text by how they are written: one with a capital is a name, unless it is the first."""
    for place, word in enumerate(re.findall(r"[^\s.,;:!?؟।«»\"'()\[\]“”„…<>|/-]+", text)):
        named = place > 0 and word[0].isupper()
        yield Word(word, "number" if re.search(r"\d", word) else "name" if named else "other")


def help_sentences(data: TrainingSets, lang: str) -> Iterator[Sentence]:
    """Yield sentences of the help, of its sections and its aligned paragraphs."""
    texts = [text for name, text in data.corpus.items() if name.startswith(f"{HELP}/{lang}:")]
    pages = ("\n".join(each[lang] for _, each in page if lang in each) for page in data.pages)
    texts += [text for text in pages if len(text) > 200]
    random.Random(f"help:{lang}").shuffle(texts)
    for number, text in enumerate(texts[:PASSAGES]):
        for sentence in sentences(text, lang):
            yield Sentence(sentence, tuple(_words(sentence)), number)


class Pool:
    """Sentences of one language and origin, each once, and questions for them."""

    def __init__(self, name: str, lang: str, found: list[Sentence]) -> None:
        """Take over the sentences.

        Args:
            name: of where they come from.
            lang: of all of them.
            found: in the order of their texts.
        """
        self.name, self.lang = name, lang
        self.sentences = list({sentence.text: sentence for sentence in found}.values())
        self.by_key = {sentence.key: sentence for sentence in self.sentences if sentence.key}
        self._places: dict[int, list[int]] = collections.defaultdict(list)
        for place, sentence in enumerate(self.sentences):
            self._places[sentence.passage].append(place)
        self._frequency = collections.Counter(word.text.lower() for s in self.sentences for word in s.words)

    def groups(self, count: int, rng: random.Random, other: "Pool | None" = None) -> list[Group]:
        """Return groups, fewer where sentences or rivals are lacking.

        Args:
            count: of questions.
            rng: of all choices.
            other: translations, which the texts are taken from; the pool's own sentences without it.
        """
        pool = [place for place, s in enumerate(self.sentences) if FEWEST_WORDS <= len(s.words) <= MOST_WORDS]
        if other:
            pool = [place for place in pool if self.sentences[place].key in other.by_key]
        drawn = (rng.choice(pool) for _ in range(count))
        asked = [(question, place) for place in drawn if (question := self._question(self.sentences[place].words, rng))]
        mined = bm25([question for question, _ in asked], [sentence.text for sentence in self.sentences], DEPTH)
        groups = (self._group(*each, found, rng, other) for each, found in zip(asked, mined, strict=True))
        return [group for group in groups if group]

    def _question(self, words: tuple[Word, ...], rng: random.Random) -> str:
        """Return a question that some words of a sentence answer, or nothing where too few words are left."""
        wording, last = WORDINGS[self.lang], len(words) - 1
        likely = [place for place, word in enumerate(words) if word.kind != "other"]
        start = rng.choice(likely) if likely and rng.random() < 0.6 else rng.randint(0, last)
        kind = words[start].kind
        stop = start + 1
        while stop <= last and stop - start < 4 and words[stop].kind == kind and (kind == "name" or rng.random() < 0.4):
            stop += 1
        asks = wording.time if kind == "number" and TIMES.fullmatch(words[start].text) else getattr(wording, kind)
        near = rng.randint(4, 9) if rng.random() < 0.6 else len(words)
        before = self._kept(words[max(0, start - near) : start], rng)
        after = self._kept(words[stop : stop + near], rng)
        if len(before) + len(after) < FEWEST_ASKED:
            return ""
        word = rng.choice(asks)
        parts = [word, *before, *after] if wording.first else [*before, word, *after]
        text = ("" if self.lang in SPACELESS else " ").join(parts)
        text = text.lower() if rng.random() < 0.3 else text[0].upper() + text[1:]
        return text + (wording.end if rng.random() < 0.9 else "")

    def _kept(self, words: tuple[Word, ...], rng: random.Random) -> list[str]:
        """Return the words that stay: rare ones more often."""
        common = len(self.sentences) / 50
        return [
            word.text for word in words if rng.random() < (0.45 if self._frequency[word.text.lower()] > common else 0.8)
        ]

    def _group(
        self, query: str, place: int, mined: list[int], rng: random.Random, other: "Pool | None"
    ) -> Group | None:
        """Return a question with its sentence and rivals, or None where there are too few."""
        own = self.sentences[place]
        near = [i for i in self._places[own.passage] if 0 < abs(i - place) < 3]
        rivals = [*rng.sample(near, min(len(near), rng.randint(0, 2))), *mined]
        different = (self.sentences[i] for i in dict.fromkeys(rivals) if self._differ(own, self.sentences[i]))
        chosen = [own, *different]
        if other:
            chosen = [other.by_key[s.key] for s in chosen if s.key in other.by_key]
        texts = [sentence.text[:500] for sentence in chosen][:SIZE]
        if len(texts) < SIZE:
            return None
        lang = self.lang if not other else f"{self.lang}-{other.lang}"
        target = [1.0] + [0.0] * (SIZE - 1)
        group = {"kind": "cloze", "source": self.name, "lang": lang, "query": query, "texts": texts, "target": target}
        return {**group, "length": 160}

    def _differ(self, one: Sentence, two: Sentence) -> bool:
        """Tell whether two sentences do not say the same."""
        a, b = terms(one.text, self.lang), terms(two.text, self.lang)
        return len(a & b) < ALIKE * min(len(a), len(b)) if a and b else False


def pools_of(lang: str, data: TrainingSets, treebanks: Path, evaluation: Evaluation) -> list[Pool]:
    """Return the pools of a language: its treebanks, and the help if it has one."""
    found = [s for path in sorted(treebanks.glob(f"{lang}_*.conllu")) for s in treebank(path, lang)]
    clean = [sentence for sentence in found if not evaluation.overlaps(sentence.text)]
    print(f"{lang}: {len(found) - len(clean)} of {len(found)} sentences overlap with the evaluation sets", flush=True)
    pools = [Pool("treebanks", lang, clean)]
    if lang not in SPACELESS:
        pools.append(Pool(HELP, lang, list(help_sentences(data, lang))))
    return [pool for pool in pools if len(pool.sentences) > 500]


def main() -> None:
    """Write the groups."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory of the training sets")
    parser.add_argument("treebanks", type=Path, help="directory of CoNLL-U files")
    parser.add_argument(
        "evaluation", type=Path, help="directory of the evaluation sets, which nothing may overlap with"
    )
    parser.add_argument("out", type=Path, help="directory to write")
    parser.add_argument("--parallel", type=Path, required=True, help="written by parallel.py")
    args = parser.parse_args()
    data, evaluation = TrainingSets(args.data, args.parallel), Evaluation(args.evaluation)
    rng = random.Random("cloze")
    pools = {lang: pools_of(lang, data, args.treebanks, evaluation) for lang in COUNTS}
    rows = [g for lang, n in COUNTS.items() for pool in pools[lang] for g in pool.groups(n // len(pools[lang]), rng)]
    aligned = [pool for found in pools.values() for pool in found if pool.by_key]
    pairs = [(one, two) for one in aligned for two in aligned if one is not two]
    rows += [group for one, two in pairs for group in one.groups(ACROSS // len(pairs), rng, two)]
    rng.shuffle(rows)
    write_groups(args.out, rows)
    counts = collections.Counter(f"{row['source']}/{row['lang']}" for row in rows)
    print(f"{len(rows)} groups: {dict(counts.most_common())}")


if __name__ == "__main__":
    main()
