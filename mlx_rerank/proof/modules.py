"""A head of sentence-transformers' modules over transformers' model, in torch; torch is imported when it is used."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from mlx_rerank.device.optional import imported
from mlx_rerank.models.family import MODULES_KEY


def with_head(backbone: Any, config: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> Any:
    """Return a torch module that is called as a classifier of transformers is.

    Args:
        backbone: transformers' model without a head.
        config: config.json with what the modules' files say.
        state: tensors, those of modules among them, whose names begin with the modules' folders.

    Source: sentence_transformers' Pooling, Dense and LayerNorm, version 6.2; tests/families/test_modernbert_modules.py.
    """
    torch = imported("torch")
    pooling, *modules = config[MODULES_KEY]
    mean = pooling.get("pooling_mode") == "mean" or pooling.get("pooling_mode_mean_tokens") is True
    steps = torch.nn.Sequential()
    for module in modules:
        own = {
            name.rpartition(".")[2]: torch.from_numpy(np.array(value, dtype=np.float32))
            for name, value in state.items()
            if name.startswith(f"{module['path']}/")
        }
        if "dimension" in module:
            step = torch.nn.LayerNorm(module["dimension"])
        else:
            step = torch.nn.Linear(module["in_features"], module["out_features"], bias=module["bias"])
        step.load_state_dict(own, strict=True)
        steps.append(step)
        if "dimension" not in module:
            steps.append(getattr(torch.nn, module["activation_function"].rpartition(".")[2])())

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.steps, self.config = backbone, steps, backbone.config

        @property
        def dtype(self) -> Any:
            return self.backbone.dtype

        def forward(self, attention_mask: Any, token_type_ids: Any = None, **given: Any) -> Any:
            found = self.backbone(attention_mask=attention_mask, **given)
            x = found.last_hidden_state
            shares = attention_mask[..., None] / attention_mask.sum(1)[:, None, None]
            pooled = (x * shares.to(x.dtype)).sum(1) if mean else x[:, 0]
            return SimpleNamespace(logits=self.steps(pooled), hidden_states=found.hidden_states)

    return Classifier()
