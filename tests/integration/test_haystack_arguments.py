"""What MLXRanker of Haystack is given: kept, saved, refused, and handed on to the model."""

from pathlib import Path

import pytest
from haystack import Document

from mlx_rerank import Reranker
from mlx_rerank.errors import CheckpointNotFoundError, InputError
from mlx_rerank.integrations.haystack import MLXRanker

QUERY = "What do giant pandas eat?"


def test_what_was_not_read_is_told_and_what_an_earlier_ranker_told_is_not():
    text = "bamboo " * 100 + "\n\n" + "The giant panda eats bamboo. " * 3 + "\n\n" + "Paris " * 100
    document = Document(content=text, meta={"title": "Bears of the world"})
    title = "Bears of the world\n"
    (read,) = Reranker("mini", max_length=40).rank(QUERY, [title + text])
    (cut,) = MLXRanker(meta_fields_to_embed=["title"], options={"max_length": 40}).run(QUERY, [document])["documents"]
    assert cut.meta["relevant_span"] == [0, read.span[1] - len(title)]
    assert cut.meta["truncated_tokens"] == read.truncated_tokens > 100
    options = {"max_length": 64, "long_documents": "windows"}
    (windows,) = MLXRanker(meta_fields_to_embed=["title"], options=options).run(QUERY, [cut])["documents"]
    start, end = windows.meta["relevant_span"]
    assert text[start:end].strip().startswith("The giant panda")
    assert "truncated_tokens" not in windows.meta
    (whole,) = MLXRanker().run(QUERY, [windows])["documents"]
    assert whole.meta == document.meta


def test_every_argument_survives_saving(tmp_path):
    ranker = MLXRanker(
        Path("mini"),
        top_k=3,
        scale_score=False,
        score_threshold=-1.5,
        meta_fields_to_embed=["title"],
        embedding_separator=" ",
        options={"max_length": 99, "cache_dir": tmp_path},
    )
    parameters = {
        "model": "mini",
        "top_k": 3,
        "scale_score": False,
        "score_threshold": -1.5,
        "meta_fields_to_embed": ["title"],
        "embedding_separator": " ",
        "options": {"max_length": 99, "cache_dir": str(tmp_path)},
    }
    saved = ranker.to_dict()
    assert saved == {"type": "mlx_rerank.integrations.haystack.MLXRanker", "init_parameters": parameters}
    assert MLXRanker.from_dict(saved).to_dict() == saved
    assert "options" in MLXRanker().to_dict()["init_parameters"]


def test_arguments_are_copied():
    fields, options = ["title"], {"max_length": 99}
    ranker = MLXRanker(meta_fields_to_embed=fields, options=options)
    fields.append("other")
    options["dtypes"] = 0
    assert (ranker.meta_fields_to_embed, ranker.options) == (["title"], {"max_length": 99})


def test_what_is_wrong_is_told_where_the_model_is_loaded():
    with pytest.raises(InputError, match="dtypes: no option of Reranker, which has dtype, "):
        MLXRanker(options={"dtypes": "float32"}).warm_up()
    with pytest.raises(CheckpointNotFoundError, match="nowhere"):
        MLXRanker("nowhere").warm_up()
    with pytest.raises(InputError, match="scale_score must be True or False, not 'false'"):
        MLXRanker(scale_score="false")  # pyright: ignore[reportArgumentType]
    for wrong in ("title", "", {}):
        with pytest.raises(InputError, match="meta_fields_to_embed must be a list, not a "):
            MLXRanker(meta_fields_to_embed=wrong)  # pyright: ignore[reportArgumentType]
