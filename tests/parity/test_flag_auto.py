"""FlagAutoReranker against FlagEmbedding's own, on directories named as models of the hub are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import test_bert
from families.checks import PAIRS, seeded, write
from FlagEmbedding import FlagAutoReranker as Original
from FlagEmbedding.inference.reranker.model_mapping import RerankerModelClass

from mlx_rerank import FlagAutoReranker

SOME = [pair for pair in PAIRS if all(pair)]  # FlagEmbedding takes an empty passage for none


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("name", "model_class"),
    [
        ("bge-reranker-base", None),
        ("bge-reranker-v2-m3/checkpoint-7", None),
        ("own", "encoder-only-base"),
        ("own", RerankerModelClass.ENCODER_ONLY_BASE),
    ],
)
def test_same_scores(tmp_path: Path, name: str, model_class: str | None) -> None:
    config = test_bert.TestBert.config
    directory = write(tmp_path / name, config, seeded(test_bert.FAMILY, config), test_bert.wordpiece())
    given = {"model_class": model_class, "devices": "cpu", "max_length": 128, "trust_remote_code": False}
    original: Any = Original.from_finetuned(str(directory), **given)
    original.model.float()
    ours = FlagAutoReranker.from_finetuned(str(directory), **given)
    found, expected = ours.compute_score(SOME), original.compute_score(SOME)
    print(f"FlagAutoReranker, float32: max |delta logit| {np.abs(np.subtract(found, expected)).max():.1e}")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_the_same_names_are_unknown(tiny: Path) -> None:
    for kind in (Original, FlagAutoReranker):
        with pytest.raises(ValueError, match="'tiny'"):
            kind.from_finetuned(str(tiny))
        with pytest.raises(ValueError, match="unheard"):
            kind.from_finetuned(str(tiny), model_class="unheard")
        with pytest.raises(EnvironmentError, match="from_finetuned"):
            kind()
