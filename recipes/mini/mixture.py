"""The groups of stage 6: new ones of all kinds and questions made from sentences, with unrelated and stuffed texts.

    python recipes/mini/mixture.py GROUPS CLOZE OUT

GROUPS holds what groups.py made, of which most aligned paragraphs are left out, and CLOZE what cloze.py made. In half
of all groups a text that is not the answer makes room for one of any other group, in any language. In some it makes
room for the words of the query, repeated or out of order: what matches in every word and says nothing.
"""

import argparse
import random
from pathlib import Path

from data import Group, read_rows, write_groups

PARALLEL = 0.4  # share of the groups of aligned paragraphs that is taken
CLOZE = 0.5  # groups of sentences for each other one, at most
UNRELATED, STUFFED = 0.5, 0.12  # shares of the groups with such a text
POWER = 2  # that targets are raised to


def stuffed(query: str, rng: random.Random) -> str:
    """Return the words of a query, one to three times."""
    words = query.split() * rng.randint(1, 3)
    if rng.random() < 0.6:
        rng.shuffle(words)
    return " ".join(words)


def varied(group: Group, others: list[Group], rng: random.Random) -> Group:
    """Return a group with other texts in the place of some of its own, and a sharper target."""
    texts, target = list(group["texts"]), [share**POWER for share in group["target"]]
    best = max(range(len(texts)), key=target.__getitem__)
    free = [place for place in range(len(texts)) if place != best]
    rng.shuffle(free)
    if rng.random() < UNRELATED:
        place = free.pop()
        texts[place], target[place] = rng.choice(rng.choice(others)["texts"]), 0.0
    if rng.random() < STUFFED:
        place = free.pop()
        texts[place], target[place] = stuffed(group["query"], rng), 0.0
    total = sum(target)
    return group | {"texts": texts, "target": [round(share / total, 4) for share in target]}


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", type=Path, help="directory of groups.py's files")
    parser.add_argument("cloze", type=Path, help="directory of cloze.py's files")
    parser.add_argument("out", type=Path, help="directory to write")
    args = parser.parse_args()
    rng = random.Random("mixture")
    rows, made = (
        [row for path in sorted(folder.glob("*.gz")) for row in read_rows(path)] for folder in (args.groups, args.cloze)
    )
    rows = [row for row in rows if row["kind"] != "parallel" or rng.random() < PARALLEL]
    rows += rng.sample(made, min(len(made), int(CLOZE * len(rows))))
    rng.shuffle(rows)
    write_groups(args.out, [varied(row, rows, rng) for row in rows])
    print(f"{len(rows)} groups")


if __name__ == "__main__":
    main()
