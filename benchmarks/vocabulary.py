"""What a vocabulary trimmed to one language saves: counted from a tokenizer and a model's shape, no weights needed.

    python benchmarks/vocabulary.py TOKENIZER CORPUS [CORPUS ...] [--shape v2-m3] [--by-language 8]

TOKENIZER is a directory with a tokenizer.json, such as that of any XLM-RoBERTa model, whose 250,002 pieces the bge
rerankers share. CORPUS is JSON lines with `text`, perhaps gzipped; with --by-language its most frequent languages
(`lang`) are trimmed to, one at a time.
"""

import argparse
import gzip
import json
import math
from collections import defaultdict
from pathlib import Path

from tokenizers import Tokenizer

from mlx_rerank.bench.checkpoints import SHAPES
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.config import read_config
from mlx_rerank.checkpoints.files import Identity
from mlx_rerank.checkpoints.hub import EMBEDDED
from mlx_rerank.convert.trim import trim
from mlx_rerank.models import family_of


def corpora(path: Path, languages: int) -> dict[str, list[str]]:
    """Return the texts of a corpus, by name: all of them, or those of its most frequent languages."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    if not languages:
        return {path.parent.name: [" ".join(filter(None, (row.get("title"), row["text"]))) for row in rows]}
    by_language = defaultdict(list)
    for row in rows:
        by_language[row["lang"]].append(row["text"])
    names = sorted(by_language, key=lambda name: -len(by_language[name]))[:languages]
    return {name: by_language[name] for name in names}


def main() -> None:
    """Count and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("--shape", choices=SHAPES, default="v2-m3")
    parser.add_argument("--by-language", type=int, default=0, metavar="N")
    given = parser.parse_args()
    pieces = Tokenizer.from_file(str(given.tokenizer / "tokenizer.json")).get_vocab_size()
    raw = (
        read_config(EMBEDDED["mini"]) | {"max_position_embeddings": 514} | SHAPES[given.shape] | {"vocab_size": pieces}
    )
    family = family_of(raw)
    identity = Identity.of(given.tokenizer)
    checkpoint = Checkpoint(given.tokenizer, identity, raw, family, family.shape(raw), family.mapping, converted=False)
    total = sum(map(math.prod, family.source_shapes(checkpoint.shape).values()))
    print("| corpus | texts | pieces kept | bytes saved | held-out texts that keep all tokens |\n|---|---|---|---|---|")
    for path in given.corpus:
        for name, texts in corpora(path, given.by_language).items():
            record = trim(checkpoint, texts).record
            saved = (pieces - record["pieces"]) * checkpoint.shape.hidden_size / total
            share = record["held_out_share"]
            cells = [name, f"{record['texts']:,}", f"{record['pieces']:,} of {pieces:,}", f"{saved:.1%}"]
            print("| " + " | ".join([*cells, "" if share is None else f"{share:.1%}"]) + " |", flush=True)


if __name__ == "__main__":
    main()
