"""The default token budget: short evaluations, small temporaries, a busy device."""

from pathlib import Path

import mlx.core as mx
import psutil
import pytest

from mlx_rerank import Reranker
from mlx_rerank.models.cost import Cost
from mlx_rerank.models.encoders.xlm_roberta import FAMILY, XLMRobertaShape
from mlx_rerank.scoring import budget
from mlx_rerank.scoring.budget import default_token_budget

GB = 2**30
GPU, CPU = mx.Device(mx.gpu), mx.Device(mx.cpu)


def cost(hidden: int, layers: int, heads: int, intermediate: int) -> Cost:
    return FAMILY.cost(XLMRobertaShape(250002, hidden, layers, heads, intermediate, 8194, 1e-5, 1, 0, 2))


MINI, BASE, LARGE = cost(384, 12, 12, 1536), cost(768, 12, 12, 3072), cost(1024, 24, 16, 4096)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_memory", lambda: 64 * GB)


@pytest.mark.usefixtures("machine")
def test_larger_models_get_fewer_tokens() -> None:
    found = [default_token_budget(model, GPU, mx.float16, 512) for model in (MINI, BASE, LARGE)]
    assert found == [16384, 16384, 4096]
    assert default_token_budget(LARGE, GPU, mx.float16, 8192) == 2048  # as attention takes more


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("model", [MINI, BASE, LARGE])
def test_an_evaluation_is_short(model: Cost) -> None:
    tokens = default_token_budget(model, GPU, mx.float16, 512)
    D = model.shape.hidden_size
    encoder = model.shape.num_hidden_layers * (4 * D * D + 2 * D * model.shape.intermediate_size)
    assert 2 * encoder * tokens <= 4e12


@pytest.mark.usefixtures("machine")
def test_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_memory", lambda: GB)
    assert default_token_budget(LARGE, GPU, mx.float32, 512) == 1024
    monkeypatch.setattr(budget, "_memory", lambda: GB // 32)
    assert default_token_budget(LARGE, GPU, mx.float32, 512) == 512  # or the device would have nothing to do
    monkeypatch.setattr(budget, "_memory", lambda: GB)
    odd = cost(768, 12, 24, 3072)  # heads of 32, which no fused attention takes: its scores count
    assert default_token_budget(odd, GPU, mx.float16, 512) < default_token_budget(BASE, GPU, mx.float16, 512)


def test_two_batches_in_flight_take_an_eighth_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 8 * 2 * 2048 * MINI.bytes(512, mx.float16.size)
    for memory, expected in ((needed, 2048), (needed - 1, 1024), (2 * needed - 1, 2048), (2 * needed, 4096)):
        monkeypatch.setattr(budget, "_memory", lambda memory=memory: memory)
        assert default_token_budget(MINI, GPU, mx.float16, 512) == expected


def test_budgets_are_powers_of_two_within_limits() -> None:
    found = [budget._power_of_two(n) for n in (0.5, 511, 1023.9, 1024, 2047, 2048, 16383, 16384, 1e9)]
    assert found == [512, 512, 512, 1024, 1024, 2048, 8192, 16384, 16384]


def test_the_memory_of_this_machine() -> None:
    assert budget._memory() == pytest.approx(psutil.virtual_memory().total, rel=0.01)


def test_on_a_cpu_a_batch_fits_the_caches() -> None:
    for model in (MINI, LARGE):
        assert default_token_budget(model, CPU, mx.float32, 512) == 512


def test_this_machine(tiny: Path) -> None:
    assert 512 <= Reranker(tiny, device="cpu").token_budget <= 8192
    assert Reranker(tiny, device="cpu", token_budget=77).token_budget == 77
