"""Groups for the next model, made as it trains: a query, six texts, which are right, and what the rival says of them.

Group N depends on the seed, N and the data alone, so that a run needs to remember no more than a number. The kinds:

sentence  a question, sentences of its passage, and of mined negatives the sentence that shares most with it
passage   a question, its passage, mined negatives and random passages; some of them long
claim     a sentence of a passage as the query, the rest of the passage, and the negatives of a question about it
cross     a heading or sentence of the help, and sections in other languages: right ones in up to three of them, and
          wrong ones in the same languages and in that of the query
parallel  the same with aligned paragraphs, and with aligned sentences of which some words are asked for
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from data import HELP, Page, Question, TrainingSets, sentences
from groups import Drafts
from licensed import name_of

SIZE = 6  # texts of a group
MIX = {"sentence": 0.46, "passage": 0.20, "claim": 0.08, "cross": 0.10, "parallel": 0.16}
UNRELATED, STUFFED = 0.25, 0.10  # shares of groups in which such a text takes the place of a wrong one
BELOW = 0.03  # of the group's least cosine, where a stuffed text is put
SHORT, LONG = 160, 384  # tokens of a pair
_SPACED = ("zh", "th", "ja")  # scripts without spaces, of which no words are taken


class Made(NamedTuple):
    """A group before the rival has seen it.

    Args:
        kind: of the list above.
        source: the set that it comes from.
        lang: of the query.
        query: what is asked.
        right: texts of which each is right, or which are the sentences of a right passage.
        wrong: texts that are not known to be right, the likeliest first.
        bonus: what being right counts, in logits, beside the rival's opinion.
        trust: what that opinion counts, from 0 to 1; of 0 it is not asked.
        length: most tokens of a pair.
    """

    kind: str
    source: str
    lang: str
    query: str
    right: list[str]
    wrong: list[str]
    bonus: float
    trust: float = 1.0
    length: int = SHORT


class Kinds:
    """Makes groups by their number."""

    def __init__(self, data: TrainingSets, seed: int) -> None:
        """Take the data over.

        Args:
            data: the training sets; its pages are the aligned texts of all sources.
            seed: of all groups.
        """
        self.data, self.seed = data, seed
        self._questions = Drafts(data, seed)
        self._makers: dict[str, Callable[[random.Random], Made | None]] = {
            kind: getattr(self, f"_{kind}") for kind in MIX if kind != "parallel" or data.pages
        }

    def made(self, number: int) -> Made:
        """Return a group, of a kind that chance decides; one that lacks texts is drawn again."""
        rng = random.Random(f"{self.seed}:{number}")
        while True:
            kind = rng.choices(list(self._makers), [MIX[kind] for kind in self._makers])[0]
            made = self._makers[kind](rng)
            if made and made.right and len(set(made.wrong) - set(made.right)) >= SIZE - 1:
                return self._varied(made, rng)

    def _varied(self, made: Made, rng: random.Random) -> Made:
        """Return a group with some of its texts, in which one may be replaced by one that is far away."""
        right = list(dict.fromkeys(made.right))[: SIZE // 2]
        wrong = [text for text in dict.fromkeys(made.wrong) if text not in made.right][: SIZE - len(right)]
        if rng.random() < UNRELATED:
            wrong[-1] = self._anything(rng)
        if rng.random() < STUFFED:
            wrong[-2] = stuffed(made.query, rng)
        return made._replace(right=right, wrong=wrong)

    def _anything(self, rng: random.Random) -> str:
        """Return a text of any kind in any language."""
        if self.data.pages and rng.random() < 0.3:
            return rng.choice(list(rng.choice(rng.choice(self.data.pages))[1].values()))
        question = self._question(rng)
        found = sentences(self.data.corpus[question.pos[0]], question.lang)
        return rng.choice(found) if found else question.text

    def _question(self, rng: random.Random, of_help: float = 0.2) -> Question:
        """Return a natural question or, with so much probability, a heading of the help."""
        if self.data.help and rng.random() < of_help:
            return rng.choice(self.data.help)
        return self._questions.question(rng)

    def _sentence(self, rng: random.Random) -> Made | None:
        """Return a question with sentences, or with pairs of them."""
        question = self._question(rng)
        pairs = rng.random() < 0.25
        own = self._cut(rng.choice(question.pos), question, pairs)[:6]
        found = (self._cut(i, question, pairs)[:12] for i in question.neg)
        near = [max(of_one, key=lambda text: self._shared(question, text)) for of_one in found if of_one]
        near.sort(key=lambda text: -self._shared(question, text) * rng.uniform(0.6, 1.4))
        if not own:
            return None
        best = max(own, key=lambda text: self._shared(question, text))
        rng.shuffle(own)
        right = own if rng.random() < 0.5 else [best, *own]
        return Made("sentence", question.source, question.lang, question.text, right, near, _bonus(question))

    def _cut(self, identifier: str, question: Question, pairs: bool) -> list[str]:
        """Return the sentences of a passage, or each two that follow one another."""
        found = sentences(self.data.corpus[identifier], question.lang)
        return [" ".join(found[i : i + 2]) for i in range(0, len(found), 2)] if pairs else found

    def _shared(self, question: Question, text: str) -> float:
        """Return how much of a question is in a text."""
        return self.data.overlap(question.text, text, question.lang)

    def _passage(self, rng: random.Random) -> Made:
        """Return a question with passages."""
        question = self._question(rng)
        most, length = (1900, LONG) if rng.random() < 0.15 else (520, SHORT)
        ids = rng.sample(question.neg, len(question.neg))[: rng.choice((4, 5, 5))]
        same = self.data.by_lang.get(question.lang)
        ids += [rng.choice(same) for _ in range(2)] if same else []
        ids += question.neg
        right, *wrong = (self.data.corpus[i][:most] for i in (rng.choice(question.pos), *ids))
        source, lang = question.source, question.lang
        return Made("passage", source, lang, question.text, [right], wrong, _bonus(question), length=length)

    def _claim(self, rng: random.Random) -> Made | None:
        """Return a sentence of a passage with the rest of it."""
        question = self._question(rng, 0.3)
        found = sentences(self.data.corpus[question.pos[0]], question.lang)
        if len(found) < 3:
            return None
        at = rng.randrange(len(found))
        rest = " ".join(found[:at] + found[at + 1 :])
        most, length = (1900, LONG) if rng.random() < 0.3 else (520, SHORT)
        wrong = [self.data.corpus[i][:most] for i in rng.sample(question.neg, len(question.neg))]
        return Made("claim", question.source, question.lang, found[at][:250], [rest[:most]], wrong, 3.0, length=length)

    def _cross(self, rng: random.Random) -> Made | None:
        """Return a heading or sentence of the help with sections in several languages."""
        question = rng.choice(self.data.help)
        others = [lang for lang in self.data.help_langs if lang != question.lang]
        langs = rng.sample(others, min(len(others), rng.choice((1, 1, 2, 3))))
        right = [self._section(question.pos[0], lang) for lang in langs]
        page = [i for i in self.data.sections[question.pos[0].split("#")[0]] if i not in question.pos]
        near = rng.sample(page, min(3, len(page))) + question.neg
        spoken = [*langs, question.lang] if rng.random() < 0.7 else langs
        wrong = [self._section(i, rng.choice(spoken)) for i in dict.fromkeys(near)]
        query = question.text
        if rng.random() < 0.5:
            query = rng.choice(sentences(self.data.corpus[question.pos[0]], question.lang) or [query])[:200]
        right, wrong = [text for text in right if text], [text for text in wrong if text]
        return Made("cross", HELP, question.lang, query, right, wrong, 6.0, trust=0.0)

    def _section(self, identifier: str, lang: str) -> str:
        """Return the text of a section of the help in a language, or nothing."""
        text = self.data.corpus.get(name_of(identifier).replace(f"{HELP}:", f"{HELP}/{lang}:", 1), "")
        return text[:400] if identifier.startswith(HELP) else ""

    def _parallel(self, rng: random.Random) -> Made | None:
        """Return a paragraph, some of its words, or a heading, with paragraphs in several languages."""
        page = rng.choice(self.data.pages)
        at = rng.randrange(len(page))
        tag, texts = page[at]
        answers = page[at + 1][1] if tag == "h" and at + 1 < len(page) else texts
        lang = rng.choice(sorted(texts)) if texts else ""
        others = sorted(set(answers) - {lang})
        if len(texts.get(lang, "")) < 10 or len(others) < 2:
            return None
        langs = rng.sample(others, rng.choice((1, 1, 2, min(3, len(others)))))
        spoken = [*langs, lang] if rng.random() < 0.7 else langs
        near = [texts for i, (_, texts) in enumerate(page) if i not in (at, at + 1)]
        wrong = _drawn(near, spoken, rng)[:4] + _drawn([texts for _, texts in rng.choice(self.data.pages)], spoken, rng)
        right = [answers[lang] for lang in langs if len(answers[lang]) >= 20]
        query = _keywords(texts[lang], lang, rng) if tag != "h" and rng.random() < 0.4 else texts[lang][:200]
        return Made("parallel", "aligned", lang, query, right, wrong, 6.0, trust=0.0)


def _bonus(question: Question) -> float:
    """Return what a right passage counts: more where the rival is no better than its student."""
    return 5.0 if question.source.startswith((HELP, "fairytale", "medquad")) else 3.0


def _drawn(rows: list[dict[str, str]], spoken: list[str], rng: random.Random) -> list[str]:
    """Return paragraphs in random order, each in one of some languages."""
    found = [row.get(rng.choice(spoken), "") for row in rng.sample(rows, len(rows))]
    return [text for text in found if len(text) >= 20]


def _keywords(text: str, lang: str, rng: random.Random) -> str:
    """Return some words of a text in their order, the longer ones rather, or all of it where words are not spaced."""
    words = text.split()
    if lang.startswith(_SPACED) or len(words) < 8:
        return text[:200]
    kept = [word.strip(".,;:()\"'?!") for word in words if rng.random() < (0.5 if len(word) > 4 else 0.15)]
    return " ".join(kept[:10]) if len(kept) > 2 else text[:200]


def stuffed(query: str, rng: random.Random) -> str:
    """Return the words of a query, one to three times, mostly out of order."""
    words = query.split() * rng.randint(1, 3)
    if rng.random() < 0.6:
        rng.shuffle(words)
    return " ".join(words)


def joined(*files: list[Page]) -> list[Page]:
    """Return the pages of several sources, in which one that has few is repeated to a third of the largest."""
    most = max(map(len, files), default=0)
    return [page for pages in files for page in pages * max(1, most // (3 * max(1, len(pages))))]


def group_of(made: Made, cosines: list[float] | None) -> dict[str, Any]:
    """Return a group as a row: the texts, which are right, and the rival's cosines.

    Args:
        made: the group.
        cosines: of its texts, the right ones first; None where there is no rival.
    """
    texts = made.right + made.wrong
    right = [1.0] * len(made.right) + [0.0] * len(made.wrong)
    prior = list(cosines or [0.0] * len(texts))
    asked = sorted(made.query.split())
    for place, text in enumerate(texts):
        if place >= len(made.right) and asked and set(text.split()) == set(asked):
            prior[place] = min(prior) - BELOW
    row = {key: getattr(made, key) for key in ("kind", "source", "lang", "query", "bonus", "trust", "length")}
    return row | {"texts": texts, "right": right, "prior": prior}
