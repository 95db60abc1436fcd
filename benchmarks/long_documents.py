"""Long documents: whether reading them in windows finds the paragraph that answers, and what each way of reading costs.

    python benchmarks/long_documents.py DATA [--languages en de] [--queries 50]

DATA is XQuAD in the BEIR layout, a directory a language. Its paragraphs are joined, in their order, to documents of
5,000 words. A question counts where its paragraph, scored alone, outranks all others of the document: what is measured
is the windows, not the model. It is found where the whole paragraph lies in the span of the best window; counted apart
are paragraphs longer than any window, of which the best window is a part.

    python benchmarks/long_documents.py --cost [--model MODEL | --shape v2-m3] [--lengths 512 1024 2048 4096 8192]

tells how long a document of so many tokens takes when it is read in one piece, and in windows within 512 tokens.
"""

import argparse
import shlex
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from relevance import read_task

from mlx_rerank import Reranker
from mlx_rerank.bench.checkpoints import SHAPES, seeded
from mlx_rerank.bench.report import about, write
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.windows import Windows

UNSPACED = {"zh": 1.7, "th": 4.5}  # letters that count as a word, where there are no spaces
SEPARATOR = "\n\n"


@dataclass(frozen=True)
class Document:
    """Paragraphs in one text, and where the characters of each begin and end."""

    text: str
    places: dict[str, tuple[int, int]]


@dataclass
class Count:
    """Questions of a language.

    Args:
        language: of paragraphs and questions.
        documents: that were made of them.
        asked: questions.
        first_alone: those whose paragraph, scored alone, outranks the others.
        found: of these, those whose paragraph lies in the span of the best window.
        part: those whose paragraph is longer, and the best window lies in it.
        cut: those for which truncation is reported where documents are cut.
        unread: those whose paragraph is not read to its end then.
    """

    language: str
    documents: int
    asked: int = 0
    first_alone: int = 0
    found: int = 0
    part: int = 0
    cut: int = 0
    unread: int = 0


def join(paragraphs: dict[str, str], words: int, language: str) -> list[Document]:
    """Join paragraphs to documents of at least so many words; what is left over belongs to the last."""
    groups: list[dict[str, str]] = [{}]
    for name, text in paragraphs.items():
        if sum(count_words(part, language) for part in groups[-1].values()) >= words:
            groups.append({})
        groups[-1][name] = text
    if len(groups) > 1 and sum(count_words(part, language) for part in groups[-1].values()) < words:
        rest = groups.pop()
        groups[-1] |= rest
    return [document_of(group) for group in groups]


def count_words(text: str, language: str) -> float:
    """Return how many words a text has."""
    return len(text) / UNSPACED[language] if language in UNSPACED else len(text.split())


def document_of(paragraphs: dict[str, str]) -> Document:
    """Return a document."""
    places, at = {}, 0
    for name, text in paragraphs.items():
        places[name] = (at, at + len(text))
        at += len(text) + len(SEPARATOR)
    return Document(SEPARATOR.join(paragraphs.values()), places)


def measure(reranker: Reranker, directory: Path, queries: int, words: int) -> Count:
    """Ask a language's questions."""
    task = read_task(directory, directory.name, "xquad", queries, 1)
    documents = join(task.documents, words, directory.name)
    home = {name: document for document in documents for name in document.places}
    count = Count(directory.name, len(documents))
    windows = Limits(reranker.max_length, long_documents=Windows())
    for query, text in task.queries.items():
        answer = next(iter(task.qrels[query]))
        document, (begin, end) = home[answer], home[answer].places[answer]
        names = list(document.places)
        alone = reranker.logits([(text, document.text[slice(*document.places[name])]) for name in names]).logits
        count.asked += 1
        if names[int(alone.argmax())] != answer or np.count_nonzero(alone == alone.max()) > 1:
            continue
        count.first_alone += 1
        whole = reranker.logits([(text, document.text)], limits=windows)
        first, last = whole.spans[0].tolist()
        count.found += int(first <= begin and end <= last)
        count.part += int(begin <= first and last <= end and last - first < end - begin)
        truncated = reranker.logits([(text, document.text)])
        count.cut += int(truncated.truncated_tokens[0] > 0)
        count.unread += int(truncated.spans[0, 1] < end)
    return count


def cost(model: str, lengths: list[int], rounds: int) -> list[dict]:
    """Return what documents of so many tokens cost, in one piece and in windows: seconds, and tokens computed."""
    reranker = Reranker(model)
    days = range(max(lengths) // 10)  # so that no two windows are alike, of which one would do
    text = "".join(f"On day {day} the river falls over a wall of rock, and is heard far away. " for day in days)
    rows = []
    for length in [min(lengths), *lengths]:  # the first warms up
        ways = {"in windows": Limits(512, document_max_length=length, long_documents=Windows())}
        if length <= reranker.config.max_length:
            ways["in one piece"] = Limits(length)
        row: dict = {"tokens": length}
        for way, limits in ways.items():
            times, before = [], reranker.engine.tokens
            for _ in range(rounds):
                start = time.perf_counter()
                reranker.logits([("What falls?", text)], limits=limits)
                times.append(time.perf_counter() - start)
            row[way] = {"seconds": float(np.median(times)), "tokens": (reranker.engine.tokens - before) // rounds}
        rows.append(row)
        print(row, flush=True)
    return rows[1:]


def main() -> None:
    """Measure, print a table, and write what was found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--languages", nargs="*")
    parser.add_argument("--queries", type=int, default=50, help="of each language")
    parser.add_argument("--words", type=int, default=5000, help="of a document")
    parser.add_argument("--max-length", type=int, help="tokens of a pair when questions are asked; 512 if none")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights in place of a model's, for the cost")
    parser.add_argument("--lengths", type=int, nargs="*", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("long_documents.json"))
    arguments = parser.parse_args()
    found = about("long documents", shlex.join(["python", "benchmarks/long_documents.py", *sys.argv[1:]]))
    if arguments.cost:
        with tempfile.TemporaryDirectory() as work:
            model = str(seeded(arguments.shape, Path(work))) if arguments.shape else arguments.model
            found["cost"] = cost(model, arguments.lengths, arguments.rounds)
    if arguments.data:
        reranker = Reranker(arguments.model, max_length=arguments.max_length)
        languages = arguments.languages or sorted(path.name for path in arguments.data.iterdir() if path.is_dir())
        print("language  documents  questions  first alone  found in windows  part  cut  unread when cut")
        found["counts"] = []
        for language in languages:
            count = measure(reranker, arguments.data / language, arguments.queries, arguments.words)
            found["counts"].append(asdict(count))
            print(
                f"{language:<10}{count.documents:>9}{count.asked:>11}{count.first_alone:>13}"
                f"{count.found:>11} ({count.found / max(count.first_alone, 1):.0%}){count.part:>6}{count.cut:>5}"
                f"{count.unread:>17}",
                flush=True,
            )
    write(arguments.output, found)


if __name__ == "__main__":
    main()
