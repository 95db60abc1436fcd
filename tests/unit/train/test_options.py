"""What training options take, and the learning rate of every step."""

import json
from dataclasses import asdict
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_rerank.errors import InputError
from mlx_rerank.train import TrainingOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, not 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"token_budget": -1}, "token_budget must be"),
        ({"save_every": 0}, "save_every must be"),
        ({"evaluate_every": 0}, "evaluate_every must be"),
        ({"group_size": 1}, "group_size must be a whole number of at least 2, not 1"),
        ({"lora_rank": -1}, "lora_rank must be a whole number of at least 0"),
        ({"seed": True}, "seed must be a whole number"),
        ({"learning_rate": 0}, "learning_rate must be a finite number above 0, not 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number"),
        ({"max_grad_norm": float("inf")}, "max_grad_norm must be a finite number"),
        ({"temperature": "1"}, "temperature must be a finite number above 0, not '1'"),
        ({"weight_decay": -0.1}, "weight_decay must be a finite number of at least 0"),
        ({"warmup": 1}, "warmup is a share of the steps, from 0 to below 1, not 1"),
        ({"warmup": -0.1}, "warmup is a share"),
        ({"losses": ["binary"]}, "losses are weights by name, such as {'listwise': 1.0}, not .'binary'."),
        ({"losses": {}}, "there is no loss to minimise: name one or more of listwise, binary"),
        ({"losses": {"pairwise": 1.0}}, "loss 'pairwise' is not one of listwise, binary, distillation, margin-mse"),
        ({"losses": {"binary": 0}}, "the weight of binary must be a finite number above 0"),
        ({"negatives": "random"}, "negatives 'random' is not one of bm25, model"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"lora_alpha": 0, "lora_rank": 2}, "lora_alpha must be a finite number above 0"),
        ({"temperature": 2.0}, "temperature is of the teacher's scores: give the loss distillation too"),
        ({"lora_alpha": 8}, "lora_alpha is for low-rank updates: give a lora_rank too"),
        ({"lora_rank": 2, "train_embeddings": True}, "train_embeddings needs lora_rank=0"),
    ],
)
def test_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingOptions(**options)


def test_numbers_of_numpy_and_mappings_that_change() -> None:
    losses = {"binary": 1.0}
    options = TrainingOptions(epochs=np.int64(3), max_length=np.int32(40), losses=MappingProxyType(losses))  # pyright: ignore[reportArgumentType]
    losses["listwise"] = 1.0
    assert json.loads(json.dumps(asdict(options)))["epochs"] == 3
    assert options.max_length == 40
    assert options.losses == {"binary": 1.0}


def test_usual_values() -> None:
    assert TrainingOptions().peak_rate == 2e-5
    assert TrainingOptions(lora_rank=4).peak_rate == 2e-4
    assert TrainingOptions(lora_rank=4, learning_rate=1e-3).peak_rate == 1e-3
    assert TrainingOptions(lora_rank=4).lora_scale == 2
    assert TrainingOptions(lora_rank=4, lora_alpha=2).lora_scale == 0.5
    assert TrainingOptions().losses == {"listwise": 1.0, "binary": 0.5}


def test_rate_of_ten_steps() -> None:
    options = TrainingOptions(learning_rate=1.0, warmup=0.2)
    expected = [1 / 2, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    assert [options.rate(step, 10) for step in range(10)] == pytest.approx(expected)


@given(st.integers(1, 300), st.floats(0, 0.99))
def test_rates_rise_and_then_fall(steps: int, warmup: float) -> None:
    options = TrainingOptions(learning_rate=3e-4, warmup=warmup)
    rates = [options.rate(step, steps) for step in range(steps)]
    assert all(0 < rate < 3.0000001e-4 for rate in rates)
    assert max(rates) == pytest.approx(3e-4)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
