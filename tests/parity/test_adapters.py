"""Adapters that peft has trained: refused, with what makes a model of them."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_hub import FakeHub
from texts import PAIRS

from mlx_rerank import Reranker
from mlx_rerank.errors import CheckpointError


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_becomes_a_model_as_the_error_says(tiny: Path, tmp_path: Path, hub: FakeHub) -> None:
    import peft
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_pretrained(tiny)
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], init_lora_weights=False)
    peft.get_peft_model(base, lora).save_pretrained(str(tmp_path / "adapter"))
    hub.publish("test/adapter", tmp_path / "adapter")
    for place in (tmp_path / "adapter", "test/adapter"):
        with pytest.raises(CheckpointError, match=r"has no config.json.* adapter \(LORA\) of .*tiny'") as caught:
            Reranker(place, cache_dir=tmp_path / "cache")
    remedy = re.search(r"with (peft\..*), and copy", str(caught.value))
    assert remedy
    exec(remedy[1], {"peft": peft, "adapter": tmp_path / "adapter", "merged": tmp_path / "merged"})
    for path in tiny.glob("tokenizer*"):
        shutil.copy(path, tmp_path / "merged")
    assert not np.allclose(Reranker(tmp_path / "merged").score(PAIRS), Reranker(tiny).score(PAIRS), atol=1e-4)
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(tiny / name, tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors, .*it is an adapter"):
        Reranker(tmp_path / "adapter")
