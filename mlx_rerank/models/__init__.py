"""The architectures that can be run, by the `model_type` of their config.json."""

from mlx_rerank.models import xlm_roberta

REGISTRY = {"xlm-roberta": xlm_roberta.CrossEncoder}
