"""Turn training sets into groups for train_mini.py: one query, six texts, and a target distribution over them.

    python recipes/mini/groups.py DATA OUT --shards 20 [--parallel parallel.jsonl.gz] [--teacher DIRECTORY]

A group depends on the seed, its number, the data and the teacher alone, so shards can be made in any order, by several
processes, and again later. There are four kinds:

passage   a natural question or a heading, its passage, mined negatives, and random passages of its language
sentence  the same cut into sentences: the answering sentence, two others of its passage, and the sentences of mined
          negatives that share most with the question
cross     a heading or sentence of the help in one language, and sections or sentences in another
parallel  a paragraph of the help and its translation among others of that page, or a heading and what follows it, in
          the same language or another; only with --parallel

Sources: cross-lingual pairs from parallel text: Reimers and Gurevych 2020 (arXiv 2004.09813).
"""

import argparse
import collections
import math
import random
import re
from pathlib import Path
from typing import Any

from data import HELP, SHARD, Page, Question, TrainingSets, sentences, write_rows
from targets import SIZE, Draft, choose

MIX = {"passage": 0.18, "sentence": 0.46, "cross": 0.10, "parallel": 0.32}  # drawn again where nothing comes of it
WEIGHT = {  # of a source, beside the square root of its size
    "tydi_goldp_train/en": 1.6, "arcd_train/ar": 1.5, "cmrc2018_trial/zh": 1.4, "fairytaleqa_train/en": 0.6,
    "amqa_train/am": 0.3, "omosqa/de": 3.0, "omosqa/en": 1.5, "omosqa/ar": 1.5, "omosqa/fr": 0.5, "omosqa/uk": 0.5,
    "enelpi/tr": 0.7, "covidqa/en": 0.7, "pythonfaq/es": 2.5, "pythonfaq/el": 2.5, "pythonfaq/zh": 1.5,
    "bitcoinfaq/el": 2.0, "bitcoinfaq/es": 2.0, "bitcoinfaq/de": 1.5,
}  # fmt: skip
ASKED = {"hi": 3.0, "tr": 2.0, "vi": 2.0, "ja": 0.6, "ko": 0.6, "id": 0.6}  # languages of parallel paragraphs; others 1
LONG = ("medquad", "fairytaleqa_train")  # sources with long passages, some of which are kept long


class Drafts:
    """The groups before a choice among their texts, one for each number."""

    def __init__(self, data: TrainingSets, seed: int) -> None:
        self.data, self.seed = data, seed
        self.kinds = {kind: share for kind, share in MIX.items() if kind != "parallel" or data.pages}
        self.sources = sorted(data.natural)
        self.weights = [_weight(name, len(data.natural[name])) for name in self.sources]

    def draft(self, number: int) -> Draft:
        """Return a group, of a kind that chance decides."""
        rng = random.Random(f"{self.seed}:{number}")
        makers = {
            "passage": self.passage, "sentence": self.sentence, "cross": self.cross, "parallel": self.parallel,
        }  # fmt: skip
        while True:
            kind = rng.choices(list(self.kinds), list(self.kinds.values()))[0]
            if made := makers[kind](rng):
                return made

    def question(self, rng: random.Random) -> Question:
        """Return a natural question."""
        return rng.choice(self.data.natural[rng.choices(self.sources, self.weights)[0]])

    def passage(self, rng: random.Random) -> Draft:
        """Return a question with passages."""
        question = self.question(rng) if rng.random() < 0.85 else rng.choice(self.data.help)
        long = question.source in LONG and rng.random() < 0.3
        ids = [rng.choice(question.pos), *rng.sample(question.neg, rng.choice((3, 4, 4, 5)))]
        same_language = self.data.by_lang.get(question.lang)
        while same_language and len(ids) < SIZE:
            ids.append(rng.choice(same_language))
        ids += rng.sample(question.neg, max(0, SIZE - len(ids)))
        texts = [self.data.corpus[i][: 1600 if long else 700] for i in ids]
        length = 256 if long else 160
        return Draft("passage", question.source, question.lang, question.text, texts, length=length)

    def sentence(self, rng: random.Random) -> Draft | None:
        """Return a question with sentences, all those of its passage first: which of them answers is seen later."""
        question = self.question(rng)
        lang = question.lang
        own = sentences(self.data.corpus[rng.choice(question.pos)], lang)[:7]
        if not own:
            return None
        others = []
        for identifier in rng.sample(question.neg, 4):
            found = sentences(self.data.corpus[identifier], lang)[:12]
            if found:
                others.append(max(found, key=lambda text: self.data.overlap(question.text, text, lang)))
        return Draft("sentence", question.source, lang, question.text, own + others, right=len(own))

    def cross(self, rng: random.Random) -> Draft | None:
        """Return a heading of the help with sections in another language, or a sentence instead of either."""
        question, target = rng.choice(self.data.help), rng.choice(self.data.help_langs)
        if target == question.lang and rng.random() < 0.5:
            return None
        right = _translated(question.pos[0], target)
        if right not in self.data.corpus:
            return None
        near = [other for other in self.data.sections[right.split("#")[0]] if other != right]
        wrong = rng.sample(near, min(2, len(near))) + [_translated(other, target) for other in question.neg]
        wrong = [i for i in dict.fromkeys(wrong) if i in self.data.corpus and i.startswith(HELP + "/") and i != right]
        wrong = wrong[: SIZE - 1]
        if len(wrong) < SIZE - 1:
            return None
        query, texts = question.text, [self.data.corpus[i][:500] for i in (right, *wrong)]
        if rng.random() < 0.55:
            found = self._aligned_sentence(rng, question, target, texts, wrong)
            if found is None:
                return None
            query, texts = found
        return Draft("cross", HELP, f"{question.lang}-{target}", query, texts)

    def _aligned_sentence(
        self, rng: random.Random, question: Question, target: str, sections: list[str], wrong: list[str]
    ) -> tuple[str, list[str]] | None:
        """Return a sentence of a section as the query, and sentences as texts where they can be aligned.

        Args:
            rng: chooses.
            question: whose passage is the section.
            target: language of the texts.
            sections: texts of the passage in that language, and of others.
            wrong: ids of the others.
        """
        asked = sentences(self.data.corpus[question.pos[0]], question.lang)
        answered = sentences(sections[0], target)
        if not asked:
            return None
        at, texts = rng.randrange(len(asked)), sections
        if len(asked) == len(answered) and rng.random() < 0.6:
            others = [text for i in wrong for text in sentences(self.data.corpus[i][:700], target)]
            near = [text for i, text in enumerate(answered) if i != at][:3]
            others = near + rng.sample(others, min(SIZE, len(others)))
            if len(others) < SIZE - 1:
                return None
            texts = [answered[at], *others[: SIZE - 1]]
        query = asked[at][:250]
        return None if texts[0] == query else (query, texts)

    def parallel(self, rng: random.Random) -> Draft | None:
        """Return a paragraph and its translation, or a heading and the paragraph under it, among others of the page."""
        page, elsewhere = rng.choice(self.data.pages), rng.choice(self.data.pages)
        at = rng.randrange(len(page))
        tag, texts = page[at]
        asked = [lang for lang in texts if 6 <= len(texts[lang]) <= 250]
        if not asked:
            return None
        lang = _pick(rng, asked)
        heading = tag == "h" and at + 1 < len(page)
        answers = page[at + 1][1] if heading else texts
        found = [x for x in answers if (heading or x != lang) and len(answers[x]) >= 20]
        if not found or (tag == "h" and not heading) or (not heading and rng.random() < 0.3):
            return None
        target = lang if heading and lang in found and rng.random() < 0.5 else _pick(rng, found)
        right = answers[target]
        near = _texts([item for i, item in enumerate(page) if i not in (at, at + heading)], target)
        far = _texts(elsewhere, target)
        wrong = rng.sample(near, min(4, len(near)))
        wrong += rng.sample(far, min(SIZE - 1 - len(wrong), len(far)))
        wrong = [text for text in dict.fromkeys(wrong) if text != right]
        if len(wrong) < SIZE - 1:
            return None
        return Draft("parallel", f"{HELP}_parallel", f"{lang}-{target}", texts[lang], [right, *wrong])


def _weight(name: str, questions: int) -> float:
    """Return how often a source is drawn from, relative to others. Of AfriQA there are many small ones."""
    return math.sqrt(questions) * WEIGHT.get(name, 1.0) * (0.25 if name.startswith("afriqa") else 1.0)


def _translated(identifier: str, lang: str) -> str:
    """Return the id of a section of the help in another language."""
    return re.sub(rf"^{HELP}/[^:]+:", f"{HELP}/{lang}:", identifier)


def _texts(page: Page, lang: str) -> list[str]:
    """Return the paragraphs of a page in a language, but for very short ones."""
    return [texts[lang] for _, texts in page if len(texts.get(lang, "")) >= 20]


def _pick(rng: random.Random, langs: list[str]) -> str:
    """Return one of some languages."""
    return rng.choices(langs, [ASKED.get(lang, 1.0) for lang in langs])[0]


def make_shard(drafts: Drafts, shard: int, teacher: Any, soft: float, temperature: float) -> list[dict[str, Any]]:
    """Return the groups of one file; those with too few texts are left out.

    Args:
        drafts: of the groups.
        shard: number of the file.
        teacher: scores texts, or None.
        soft: share of the teacher's distribution in the targets.
        temperature: of that distribution.
    """
    numbers = range(shard * SHARD, (shard + 1) * SHARD)
    made = [drafts.draft(number) for number in numbers]
    scores = teacher.score(made) if teacher else [None] * len(made)
    groups = []
    for number, draft, of_texts in zip(numbers, made, scores, strict=True):
        rng = random.Random(f"{drafts.seed}:choose:{number}")
        overlap = [0.0] * len(draft.texts)
        if draft.kind == "sentence":
            overlap = [drafts.data.overlap(draft.query, text, draft.lang) for text in draft.texts]
        group = choose(draft, overlap, of_texts, rng, soft, temperature)
        if len(group["texts"]) == SIZE:
            groups.append({"number": number, **group})
    return groups


def main() -> None:
    """Write the shards that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory with train.jsonl.gz and corpus.jsonl.gz")
    parser.add_argument("out", type=Path, help="directory for groups-NNN.jsonl.gz")
    parser.add_argument("--start", type=int, default=0, help="first shard")
    parser.add_argument("--shards", type=int, default=10)
    parser.add_argument("--parallel", type=Path, help="aligned paragraphs, written by parallel.py")
    parser.add_argument("--teacher", type=Path, help="Hugging Face directory of a bi-encoder")
    parser.add_argument("--soft", type=float, default=0.4, help="share of the teacher's distribution in the targets")
    parser.add_argument("--temperature", type=float, default=0.03, help="of the teacher's distribution")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of the teacher")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    drafts, teacher = Drafts(TrainingSets(args.data, args.parallel), args.seed), None
    if args.teacher:
        from teacher import Teacher

        teacher = Teacher(args.teacher, args.threads)
    for shard in range(args.start, args.start + args.shards):
        path = args.out / f"groups-{shard:03}.jsonl.gz"
        if not path.exists():
            groups = make_shard(drafts, shard, teacher, args.soft, args.temperature)
            write_rows(path, groups)
            print(path.name, len(groups), dict(collections.Counter(group["kind"] for group in groups)), flush=True)


if __name__ == "__main__":
    main()
