"""Aligned paragraphs of LibreOffice's help (MPL-2.0) in twelve languages, from Debian bookworm's packages.

    apt-get download libreoffice-help-{hi,tr,vi,zh-cn,el,ru,es,de,en-us,ja,ko,id}
    for package in *.deb; do dpkg-deb -x $package TREE; done
    python recipes/mini/parallel.py TREE/usr/share/libreoffice/help parallel.jsonl.gz

Headings and paragraphs have the same id in every language. A line of the output is a page:
[["h" or "p", {language: text}], ...].
"""

import argparse
import collections
import html
import re
from collections.abc import Sequence
from pathlib import Path

from data import Page, write_rows

ENGLISH = "en-US"
NAMES = {ENGLISH: "en", "zh-CN": "zh"}
LONGEST = 600  # characters of a paragraph
_ITEM = re.compile(r'<(h\d|p) id="((?:par|hd)_id[^"]+)"[^>]*>(.*?)</\1>', re.DOTALL)
_FOR_A_MAC = re.compile(r'<span hidden="true" id="MAC.*?</span>', re.DOTALL)  # keys of its keyboard


def aligned(root: Path, page: Path, folders: Sequence[str]) -> Page:
    """Return the paragraphs of a page.

    Args:
        root: that has a folder for each language.
        page: below these folders.
        folders: names of them, English first: what equals the English text is not translated, and left out.
    """
    items: dict[str, tuple[str, dict[str, str]]] = {}
    for folder in folders:
        path = root / folder / page
        if not path.exists():
            continue
        for tag, key, body in _ITEM.findall(path.read_text(encoding="utf-8")):
            text = html.unescape(re.sub(r"<[^>]*>", "", _FOR_A_MAC.sub("", body)))
            text = re.sub(r"\s+", " ", text).strip()
            texts = items.setdefault(key, (tag[0], {}))[1]
            if text and text != texts.get("en"):
                texts[NAMES.get(folder, folder)] = text[:LONGEST]
    return [(tag, texts) for tag, texts in items.values() if texts]


def main() -> None:
    """Write the pages with at least four paragraphs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="directory with a folder for each language")
    parser.add_argument("out", type=Path, help="gzipped JSON lines to write")
    args = parser.parse_args()
    found = sorted(folder.name for folder in args.root.iterdir() if (folder / "text").is_dir())
    folders = [ENGLISH, *(name for name in found if name != ENGLISH)]
    english = args.root / ENGLISH
    paths = sorted(path.relative_to(english) for path in (english / "text").rglob("*.html"))
    pages = [aligned(args.root, path, folders) for path in paths]
    write_rows(args.out, (page for page in pages if len(page) >= 4))
    print(dict(collections.Counter(lang for page in pages for _, texts in page for lang in texts)))


if __name__ == "__main__":
    main()
