"""What a model card says, from the records of a conversion, of trimming and of training."""

from pathlib import Path
from typing import Any

import pytest

from mlx_rerank.checkpoints.card import describe_training, describe_trimming, model_card, renamed
from mlx_rerank.checkpoints.config import CONVERSION_KEY

DONE = {"source": "some/model", "revision": "", "version": "0.1.0"}
TRIMMED = {
    "bytes": 1_000_000, "source_bytes": 96_000_000, "pieces": 1200, "source_pieces": 250_000, "texts": 3000,
    "held_out_share": None, "held_out_texts": 0,
}  # fmt: skip
RUN = {"options": {"lora_rank": 0, "losses": {"margin": 0.5, "rank": 1.0}, "train_embeddings": False, "epochs": 3},
       "queries": 1500, "history": [{"loss": 2.0}]}  # fmt: skip


def card(source_card: Path, **done: Any) -> str:
    return model_card({"dtype": "float16", CONVERSION_KEY: DONE | done}, 512, source_card, name="me/mine")


def test_a_plain_conversion(tmp_path: Path) -> None:
    text = card(tmp_path / "none.md")
    assert text.startswith("---\n")
    expected = (
        "# me/mine",
        "| converted from | some/model |",
        "| with | mlx-rerank 0.1.0 |",
        "| weights | float16 |",
        "| longest pair | 512 tokens |",
        'reranker = Reranker("me/mine")',
        "base_model: some/model",
    )
    for line in expected:
        assert line in text.split("\n")
    for absent in ("license:", "language:", "| vocabulary |", "| trained |"):
        assert absent not in text
    assert "base_model" not in card(tmp_path / "none.md", source="directory")


def test_what_was_done(tmp_path: Path) -> None:
    text = card(tmp_path / "none.md", revision="abc", packing="8 bits", vocabulary=TRIMMED, training=RUN)
    assert "| converted from | some/model at abc |" in text
    assert "| weights | float16; 8 bits |\n| vocabulary | 1,200 of 250,000 pieces" in text
    assert "|\n| trained | on 1,500 queries, 3 times each" in text


def test_licence_and_languages_are_the_sources(tmp_path: Path) -> None:
    source = tmp_path / "README.md"
    source.write_text("---\nlicense: apache-2.0\nlanguage:\n- de\n- en\n---\n# Source\n")
    text = card(source)
    assert "license: apache-2.0" in text
    assert "language:\n- de\n- en\n" in text
    trimmed = card(source, vocabulary=TRIMMED)
    assert "license: apache-2.0" in trimmed
    assert "language:" not in trimmed  # a trimmed vocabulary reads fewer


def test_trimming_in_words() -> None:
    words = "1,200 of 250,000 pieces, those of 3,000 texts; word embeddings of 1.0 MB instead of 96.0 MB"
    assert describe_trimming(TRIMMED) == words
    held_out = TRIMMED | {"held_out_share": 0.987, "held_out_texts": 1500}
    assert describe_trimming(held_out) == (
        f"{words}; with the pieces of the other texts alone, 98.7% of 1,500 held-out texts keep all tokens"
    )


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({}, "all weights but the word embeddings"),
        ({"train_embeddings": True}, "all weights"),
        ({"lora_rank": 8}, "low-rank updates of rank 8, merged"),
    ],
)
def test_training_in_words(options: dict[str, Any], trained: str) -> None:
    words = f"on 1,500 queries, 3 times each; {trained}; losses 0.5 x margin, 1 x rank"
    record = RUN | {"options": RUN["options"] | options}  # pyright: ignore[reportOperatorIssue]
    assert describe_training(record) == words
    history = [{"dev_ndcg": 0.5}, {"loss": 1.0}, {"dev_ndcg": 0.625}, {"dev_ndcg": 0.75}]
    assert describe_training(record | {"history": history}) == (
        f"{words}; nDCG@10 of the dev set 0.500 before and 0.750 after"
    )


def test_a_name_is_changed_in_the_headline_and_the_first_example_alone() -> None:
    body = '\n# {0}\n\n## Reranker\n\n```python\n# old\nReranker("{0}")\nReranker("old")\n```\n'
    header = "---\n# old\nlicense: mit\n---\n"
    assert renamed(header + body.format("old"), "new") == header + body.format("new")
    assert renamed(body.format("old"), "new") == body.format("new")
