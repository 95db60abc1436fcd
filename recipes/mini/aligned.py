"""Aligned sentences of Universal Dependencies' PUD treebanks (CC BY-SA 3.0), in the form of parallel.py.

    python recipes/mini/aligned.py CLONES EVALUATION aligned.jsonl.gz

CLONES holds a git clone of each treebank, called UniversalDependencies+UD_NAME-PUD. Sentences that overlap with the
evaluation sets in any of the languages are left out. Chinese is in simplified characters, by OpenCC.
"""

import argparse
import re
import subprocess
from pathlib import Path

from data import Page, write_rows
from natural import Evaluation

PAGE = 20  # sentences
_SENTENCE = re.compile(r"^# sent_id = (\S+)\n(?:#.*\n)*?# text = (.*)$", re.MULTILINE)


def sentences_of(clone: Path) -> tuple[str, dict[str, str]]:
    """Return the language of a treebank, and its sentences by the id that they have in all languages."""
    git = ["git", "-C", str(clone)]
    listed = subprocess.run([*git, "ls-tree", "--name-only", "HEAD"], check=True, stdout=subprocess.PIPE).stdout
    name = next(name for name in listed.decode().split() if name.endswith("_pud-ud-test.conllu"))
    text = subprocess.run([*git, "show", f"HEAD:{name}"], check=True, stdout=subprocess.PIPE).stdout.decode()
    return name.split("_")[0], dict(_SENTENCE.findall(text))


def pages(treebanks: dict[str, dict[str, str]], evaluation: Evaluation) -> list[Page]:
    """Return the sentences of all treebanks side by side.

    Args:
        treebanks: sentences by id, by language.
        evaluation: texts that none of them may overlap with.
    """
    ids = sorted({identifier for of_language in treebanks.values() for identifier in of_language})
    rows = [{lang: found[i] for lang, found in treebanks.items() if i in found} for i in ids]
    rows = [row for row in rows if not any(map(evaluation.overlaps, row.values()))]
    return [[("p", row) for row in rows[start : start + PAGE]] for start in range(0, len(rows), PAGE)]


def main() -> None:
    """Write the pages."""
    from opencc import OpenCC  # pyright: ignore[reportMissingImports]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clones", type=Path)
    parser.add_argument("evaluation", type=Path, help="directory with the evaluation sets, in the BEIR layout")
    parser.add_argument("out", type=Path, help="gzipped JSON lines to write")
    args = parser.parse_args()
    treebanks = dict(map(sentences_of, sorted(args.clones.glob("UniversalDependencies+UD_*-PUD"))))
    if "zh" in treebanks:
        converter = OpenCC("t2s")
        treebanks["zh"] = {i: converter.convert(text) for i, text in treebanks["zh"].items()}
    made = pages(treebanks, Evaluation(args.evaluation))
    write_rows(args.out, made)
    print(f"{sum(map(len, made))} sentences in {len(treebanks)} languages: {' '.join(sorted(treebanks))}")


if __name__ == "__main__":
    main()
