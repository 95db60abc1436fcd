"""The training sets of the next model: without sets whose licence is not recorded, and with more held out.

    python recipes/mini/licensed.py DATA OUT

Chinese in simplified characters is made of DRCD's traditional ones, by OpenCC. A section of the help is held out in
all languages at once, so that no translation of it is trained on. Held-out questions go to a file of their own.
"""

import argparse
import re
import zlib
from pathlib import Path
from typing import Any

from data import HELP, held_out, read_rows, write_rows

UNRECORDED = ("afriqa", "amqa", "heq", "cmrc2018", "covidfaq", "arcd", "parsinlu_rc", "persianqa", "parashoot")
TRADITIONAL = "drcd_dev"
LEAST_NEGATIVES = 5

Row = dict[str, Any]


def name_of(identifier: str) -> str:
    """Return what a question or a section of the help is called in every language; other ids as they are."""
    return re.sub(rf"^{HELP}/[^:]+:", f"{HELP}:", identifier)


def kept_out(identifier: str) -> bool:
    """Tell whether a question is kept from training: one in fifty, and of the help sections and not questions."""
    if identifier.startswith(HELP):
        return zlib.crc32(re.sub(r":\w+$", "", name_of(identifier)).encode()) % 50 == 0
    return held_out(identifier)


def licensed(row: Row) -> bool:
    """Tell whether a question or passage is of a set with a recorded licence."""
    return not row["_id"].startswith(UNRECORDED)


def simplified(row: Row, converter: Any) -> Row:
    """Return a question or passage in simplified characters, under another id."""
    renamed = {key: [_simplified_id(i) for i in row[key]] for key in ("pos", "neg") if key in row}
    return row | {"_id": _simplified_id(row["_id"]), "text": converter.convert(row["text"]), "lang": "zh"} | renamed


def _simplified_id(identifier: str) -> str:
    """Return the id of a text of DRCD in simplified characters."""
    return "simplified-" + identifier if identifier.startswith(TRADITIONAL) else identifier


def prepare(questions: list[Row], corpus: list[Row], converter: Any) -> tuple[list[Row], list[Row], list[Row]]:
    """Return questions to train on, questions that are held out, and passages.

    Args:
        questions: all of them.
        corpus: all passages.
        converter: to simplified characters.
    """
    corpus = [row for row in corpus if licensed(row)]
    known = {row["_id"] for row in corpus}
    trained, kept = [], []
    for question in filter(licensed, questions):
        row: Row = question | {key: [i for i in question[key] if i in known] for key in ("pos", "neg")}
        if not row["pos"] or len(row["neg"]) < LEAST_NEGATIVES:
            continue
        out = kept_out(row["_id"])
        (kept if out else trained).append(row)
        if row["_id"].startswith(TRADITIONAL) and not out:
            trained.append(simplified(row, converter))
    return trained, kept, corpus + [simplified(row, converter) for row in corpus if row["_id"].startswith(TRADITIONAL)]


def main() -> None:
    """Write OUT/train.jsonl.gz, OUT/held-out.jsonl.gz and OUT/corpus.jsonl.gz."""
    from opencc import OpenCC  # pyright: ignore[reportMissingImports]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory with train.jsonl.gz and corpus.jsonl.gz")
    parser.add_argument("out", type=Path, help="directory to write")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    questions, corpus = (list(read_rows(args.data / f"{name}.jsonl.gz")) for name in ("train", "corpus"))
    prepared = prepare(questions, corpus, OpenCC("t2s"))
    for name, rows in zip(("train", "held-out", "corpus"), prepared, strict=True):
        write_rows(args.out / f"{name}.jsonl.gz", rows)
        print(name, len(rows))


if __name__ == "__main__":
    main()
