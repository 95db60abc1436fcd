"""The next model against the bi-encoder it was made from and BM25, on groups that are held out of training.

    python recipes/mini/against_rival.py make DATA HELD --rival DIRECTORY --kept FILE
    python recipes/mini/against_rival.py score MODEL HELD

DATA is a directory of licensed.py. HELD becomes a file of groups of three kinds, with the scores of both rivals:

passage   a natural question, its passage and the mined negatives
sentence  the same question, the sentences of its passage, each of which counts as right, and of every negative the
          sentence that shares most with the question
cross     a heading of the help, its section in another language, and sections in both languages

BM25 knows the texts of all groups of a kind in the language of the query.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from data import HELP, Question, TrainingSets, read_rows, sentences, write_rows
from encoder import logits_of, pack
from rival import Rival
from tokenizers import Tokenizer
from train_mini import load
from transformers import XLMRobertaForSequenceClassification

PER_SOURCE = {"passage": 5, "sentence": 8}  # questions of a source in one language
CROSS = 40
ROWS = 64  # pairs of a pass
CHARACTERS = 500  # of a passage
LENGTH = 256  # most tokens of a pair
OTHERS = ("rival", "bm25")

Row = dict[str, Any]


class Held(NamedTuple):
    """Groups and the token ids of their pairs."""

    groups: list[Row]
    ids: list[list[list[int]]]

    @classmethod
    def read(cls, path: Path, model: Path) -> "Held":
        """Read a file of groups, with the tokenizer of a model."""
        groups, tokenizer = list(read_rows(path)), Tokenizer.from_file(str(model / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(LENGTH, strategy="longest_first")
        encoded = (tokenizer.encode_batch_fast([(group["query"], text) for text in group["texts"]]) for group in groups)
        return cls(groups, [[encoding.ids for encoding in of_group] for of_group in encoded])


def scores(model: XLMRobertaForSequenceClassification, held: Held, dtype: torch.dtype) -> list[list[float]]:
    """Return the logits of each group."""
    flat = [ids for of_group in held.ids for ids in of_group]
    order, found = sorted(range(len(flat)), key=lambda i: len(flat[i])), [0.0] * len(flat)
    for start in range(0, len(order), ROWS):
        places = order[start : start + ROWS]
        packed, back = pack([flat[i] for i in places])
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            of_pass = logits_of(model, packed)[back].tolist()
        for place, logit in zip(places, of_pass, strict=True):
            found[place] = logit
    rest = iter(found)
    return [[next(rest) for _ in of_group] for of_group in held.ids]


def reciprocal_rank(values: Sequence[float], right: Sequence[float]) -> float:
    """Return one over the rank of the first right text."""
    order = sorted(range(len(values)), key=lambda i: (-values[i], right[i]))
    return 1 / (1 + next(place for place, i in enumerate(order) if right[i]))


def judged(model: XLMRobertaForSequenceClassification, held: Held, dtype: torch.dtype = torch.float32) -> str:
    """Return the mean reciprocal ranks of the model and its rivals, by kind and in all."""
    rows = {"model": scores(model, held, dtype)} | {name: [group[name] for group in held.groups] for name in OTHERS}
    kinds = list(dict.fromkeys(group["kind"] for group in held.groups))
    parts = []
    for name, found in rows.items():
        ranks = [reciprocal_rank(v, group["right"]) for v, group in zip(found, held.groups, strict=True)]
        means = (np.mean([r for r, g in zip(ranks, held.groups, strict=True) if g["kind"] == kind]) for kind in kinds)
        shown = ", ".join(f"{kind} {mean:.3f}" for kind, mean in zip(kinds, means, strict=True))
        parts.append(f"{name} {np.mean(ranks):.3f} ({shown})")
    return "held-out MRR: " + "; ".join(parts)


def held_groups(data: TrainingSets, questions: list[Question], seed: int = 1) -> list[Row]:
    """Return groups without scores.

    Args:
        data: for passages and the overlap of words.
        questions: that are not trained on.
        seed: chooses.
    """
    by_source: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_source[HELP if question.source == HELP else f"{question.source}/{question.lang}"].append(question)
    rows: list[Row] = []
    for name in sorted(set(by_source) - {HELP}):
        chosen = random.Random(f"{seed}:{name}").sample(by_source[name], len(by_source[name]))
        for kind, make in (("passage", _passages), ("sentence", _sentences)):
            rows += [_row(kind, q, *make(data, q)) for q in chosen[: PER_SOURCE[kind]]]
    rng, cross = random.Random(seed), []
    for question in rng.sample(by_source[HELP], len(by_source[HELP])):
        right, wrong = _across(data, question, rng)
        if right and len(wrong) > 6 and len(cross) < CROSS:
            cross.append(_row("cross", question, right, wrong))
    return [row for row in rows + cross if any(row["right"]) and not all(row["right"])]


def _row(kind: str, question: Question, right: list[str], wrong: list[str]) -> Row:
    """Return a group."""
    wrong = [text for text in dict.fromkeys(wrong) if text not in right]
    flags = [1] * len(right) + [0] * len(wrong)
    row = {"kind": kind, "source": question.source, "lang": question.lang, "query": question.text}
    return row | {"texts": right + wrong, "right": flags}


def _passages(data: TrainingSets, question: Question) -> tuple[list[str], list[str]]:
    """Return passages."""
    right, *wrong = (data.corpus[i][:CHARACTERS] for i in (question.pos[0], *question.neg))
    return [right], wrong


def _sentences(data: TrainingSets, question: Question) -> tuple[list[str], list[str]]:
    """Return sentences."""
    cut = [sentences(data.corpus[i], question.lang) for i in (question.pos[0], *question.neg)]
    best = [max(of_one, key=lambda s: data.overlap(question.text, s, question.lang)) for of_one in cut[1:] if of_one]
    return cut[0][:6], best


def _across(data: TrainingSets, question: Question, rng: random.Random) -> tuple[list[str], list[str]]:
    """Return sections of the help in another language, and wrong ones in both."""
    other = rng.choice([lang for lang in data.help_langs if lang != question.lang])

    def text(identifier: str, lang: str) -> str:
        return data.corpus.get(identifier.replace(f"{HELP}/{question.lang}:", f"{HELP}/{lang}:", 1), "")[
            : CHARACTERS // 2
        ]

    right = [found] if (found := text(question.pos[0], other)) else []
    help_only = [i for i in question.neg if i.startswith(HELP)]
    wrong = [text(i, lang) for i in help_only for lang in (other, question.lang)]
    return right, [found for found in wrong if found][:10]


def with_scores(rows: list[Row], rival: Rival) -> list[Row]:
    """Return groups with the scores of the rival and of BM25."""
    import bm25s

    rival.read([row["query"] for row in rows], [text for row in rows for text in row["texts"]])
    made = []
    for row in rows:
        of_index = [r for r in rows if (r["kind"], r["lang"]) == (row["kind"], row["lang"])]
        texts = list(dict.fromkeys([*row["texts"], *(text for other in of_index for text in other["texts"])]))
        index = bm25s.BM25(k1=0.9, b=0.4)
        index.index([_words(text, row["lang"]) for text in texts], show_progress=False)
        found = index.get_scores(_words(row["query"], row["lang"]))[: len(row["texts"])]
        cosines = [round(value, 5) for value in rival.cosines(row["query"], row["texts"])]
        made.append(row | {"rival": cosines, "bm25": [round(float(value), 4) for value in found]})
    return made


def _words(text: str, lang: str) -> list[str]:
    """Return the words of a text, or its pairs of characters."""
    cleaned = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    if lang[:2] in ("ja", "zh", "th", "ko"):
        return [word[i : i + 2] for word in cleaned for i in range(max(1, len(word) - 1))]
    return cleaned


def main() -> None:
    """Make the groups, or score a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "score"])
    parser.add_argument("first", type=Path, help="DATA or MODEL")
    parser.add_argument("held", type=Path, help="gzipped JSON lines")
    parser.add_argument("--rival", type=Path, help="Hugging Face directory of the bi-encoder")
    parser.add_argument("--kept", type=Path, help="file for its vectors")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "score":
        print(judged(load(args.first).eval(), Held.read(args.held, args.first)))
        return
    data = TrainingSets(args.first)
    rows = [
        Question(row["_id"], row["text"][:250], row["lang"], row["source"], row["pos"], row["neg"])
        for row in read_rows(args.first / "held-out.jsonl.gz")
    ]
    write_rows(args.held, with_scores(held_groups(data, rows), Rival(args.rival, args.kept)))


if __name__ == "__main__":
    main()
