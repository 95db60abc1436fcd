"""Rerank LanceDB's full-text search: pip install 'mlx-rerank[lancedb]' ir-measures."""

import argparse
import tempfile

import lancedb
from evaluation import load, print_gain
from lancedb.index import FTS

from mlx_rerank.integrations.lancedb import MLXReranker


def main() -> None:
    """Fill a table with the corpus, and ask it all questions with and without the reranker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="a model's name, as for mlx_rerank.Reranker")
    parser.add_argument("--questions", type=int, help="how many of them to ask; all if left out")
    arguments = parser.parse_args()

    passages, questions = load(arguments.questions)
    reranker = MLXReranker(arguments.model)
    found, reranked = {}, {}

    with tempfile.TemporaryDirectory() as directory:
        table = lancedb.connect(directory).create_table("passages", passages)
        table.create_index("text", config=FTS())
        for question in questions:
            search = table.search(question["text"], query_type="fts").limit(10)
            found[question["id"]] = [row["id"] for row in search.to_list()]
            reranked[question["id"]] = [row["id"] for row in search.rerank(reranker).to_list()]

    print_gain(found, reranked, questions)


if __name__ == "__main__":
    main()
