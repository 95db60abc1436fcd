"""Groups for the last stage: questions made of a sentence's own words, and texts that have nothing to do with a query.

    python recipes/mini/last_stage.py DATA GROUPS OUT --parallel parallel.jsonl.gz [--first 45] [--last 54]

GROUPS holds what groups.py made; files --first to --last, which the stages before have not reached, are used up to
their aligned paragraphs. To them come groups in which a sentence of the help is asked for by some of its words, with
what a question has around it in seven languages, most of them in those with few natural questions. Its rivals are
sentences of the same passage, and those of others that share most with the query.

Then two of the six texts of every group are replaced by texts of any other, in any language: all that was seen
before were texts near the answer, so that a model knew little of the rest. Targets are raised to the third power, so
that the likeliest text has nearly all.
"""

import argparse
import random
import re
from pathlib import Path

from data import HELP, Group, TrainingSets, read_rows, sentences, write_groups
from targets import SIZE

LEXICAL, OTHERS = 3600, 5600  # groups of the two kinds, at most
LANGS = {"el": 5, "es": 5, "vi": 6, "en": 1, "de": 1, "ru": 1, "hi": 1}  # shares of the groups
QUESTIONS = {
    "es": ("¿Qué {}?", "¿Cuál es {}?", "¿Cuándo {}?", "¿Dónde {}?", "¿Quién {}?", "¿Cómo {}?", "¿Cuántos {}?", "{}"),
    "el": ("Τι {};", "Ποια είναι {};", "Πότε {};", "Πού {};", "Ποιος {};", "Πώς {};", "Πόσα {};", "{}"),
    "vi": (
        "{} là gì?", "{} ở đâu?", "{} khi nào?", "Ai {}?", "{} bao nhiêu?", "{} như thế nào?", "Tại sao {}?", "{}",
    ),
    "en": ("What {}?", "When {}?", "Who {}?", "{}"),
    "de": ("Was {}?", "Wann {}?", "Wer {}?", "{}"),
    "ru": ("Что {}?", "Когда {}?", "Кто {}?", "{}"),
    "hi": ("{} क्या है?", "{} कब?", "{} कौन?", "{}"),
}  # fmt: skip
PASSAGES = 6000  # of a language that are cut into sentences
KEPT = SIZE - 2  # texts of a group that stay


class Asker:
    """Makes a question of some words of a sentence."""

    def __init__(self, data: TrainingSets, rng: random.Random) -> None:
        """Cut the help into sentences.

        Args:
            data: with the aligned paragraphs, which have Vietnamese and Hindi.
            rng: of all that follows.
        """
        self.data, self.rng = data, rng
        passages: dict[str, list[str]] = {lang: [] for lang in LANGS}
        for identifier, text in data.corpus.items():
            lang = re.match(rf"{HELP}/([^:]+):", identifier)
            if lang and lang[1] in passages:
                passages[lang[1]].append(text)
        for page in data.pages:
            for lang in ("vi", "hi"):
                text = "\n".join(texts[lang] for _, texts in page if lang in texts)
                if len(text) > 200:
                    passages[lang].append(text)
        cut = {lang: [sentences(text, lang) for text in texts[:PASSAGES]] for lang, texts in passages.items()}
        self.passages = {lang: [found for found in of_lang if len(found) > 2] for lang, of_lang in cut.items()}
        self.all = {lang: [s for found in of_lang for s in found] for lang, of_lang in self.passages.items()}

    def group(self) -> Group | None:
        """Return a group, or None where the sentence that was drawn has too few words."""
        rng = self.rng
        lang = rng.choices(list(LANGS), list(LANGS.values()))[0]
        own = rng.choice(self.passages[lang])
        at = rng.randrange(len(own))
        words = self._words(own[at])
        if len(words) < 3:
            return None
        if rng.random() < 0.25:
            rng.shuffle(words)
        text = " ".join(words)
        query = rng.choice(QUESTIONS[lang]).format(text if rng.random() < 0.5 else text.lower())
        near = [sentence for i, sentence in enumerate(own) if i != at]
        drawn = rng.sample(self.all[lang], min(80, len(self.all[lang])))
        far = sorted(drawn, key=lambda sentence: -self.data.overlap(query, sentence, lang))
        texts = list(dict.fromkeys([own[at], *rng.sample(near, min(2, len(near))), *far]))[:SIZE]
        target = [1.0] + [0.0] * (SIZE - 1)
        group = {"kind": "lexical", "source": HELP, "lang": lang, "query": query, "texts": texts, "target": target}
        return {**group, "length": 160} if len(texts) == SIZE else None

    def _words(self, sentence: str) -> list[str]:
        """Return some words of a sentence, mostly rare ones, in their order; none of a short sentence."""
        words = re.findall(r"\w+", sentence)
        if len(words) < 8:
            return []
        rare = set(sorted(words, key=self.data.frequency)[: max(5, len(words) // 2)])
        return [w for w in words if (w in rare and self.rng.random() < 0.6) or self.rng.random() < 0.15][:12]


def sharpened(group: Group, others: list[Group], rng: random.Random) -> Group:
    """Return a group with two texts of any other groups in the place of two of its own, and sharper targets."""
    target = group["target"]
    best = max(range(SIZE), key=target.__getitem__)
    kept = [best, *sorted(rng.sample([i for i in range(SIZE) if i != best], KEPT - 1))]
    weights = [target[i] ** 3 for i in kept]
    far = [rng.choice(rng.choice(others)["texts"]) for _ in range(SIZE - KEPT)]
    shares = [round(weight / sum(weights), 4) for weight in weights] + [0.0] * len(far)
    return group | {"texts": [*(group["texts"][i] for i in kept), *far], "target": shares}


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory of the training sets")
    parser.add_argument("groups", type=Path, help="directory of groups.py's files")
    parser.add_argument("out", type=Path, help="directory for the new ones")
    parser.add_argument("--parallel", type=Path, required=True, help="written by parallel.py")
    parser.add_argument("--first", type=int, default=45)
    parser.add_argument("--last", type=int, default=54)
    args = parser.parse_args()
    rng = random.Random("lexical")
    asker = Asker(TrainingSets(args.data, args.parallel), rng)
    paths = [args.groups / f"groups-{n:03}.jsonl.gz" for n in range(args.first, args.last + 1)]
    old = [group for path in paths for group in read_rows(path) if group["kind"] != "parallel"]
    rng.shuffle(old)
    fresh: list[Group] = []
    while len(fresh) < LEXICAL:
        if group := asker.group():
            fresh.append(group)
    rows = fresh + old[:OTHERS]
    rng.shuffle(rows)
    rng = random.Random("sharpen")
    write_groups(args.out, [sharpened(group, rows, rng) for group in rows])


if __name__ == "__main__":
    main()
