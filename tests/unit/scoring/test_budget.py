"""The default token budget: short evaluations, small temporaries, a busy device."""

from pathlib import Path

import mlx.core as mx
import psutil
import pytest

from mlx_rerank import Reranker
from mlx_rerank.device import memory
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
    monkeypatch.setattr(budget, "installed", lambda: 64 * GB)


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
    monkeypatch.setattr(budget, "installed", lambda: 12 * GB)
    assert default_token_budget(LARGE, GPU, mx.float32, 512) == 1024
    monkeypatch.setattr(budget, "installed", lambda: GB // 32)
    assert default_token_budget(LARGE, GPU, mx.float32, 512) == 512  # or the device would have nothing to do
    monkeypatch.setattr(budget, "installed", lambda: 3 * GB)
    odd = cost(768, 12, 24, 3072)  # heads of 32, which no fused attention takes: its scores count
    assert default_token_budget(odd, GPU, mx.float16, 512) < default_token_budget(BASE, GPU, mx.float16, 512)


def test_the_layers_under_way_take_an_eighth_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 8 * 2048 * 12 * MINI.bytes(512, mx.float16.size)  # of all layers: less than MLX has under way
    for here, expected in ((needed, 2048), (needed - 1, 1024)):
        monkeypatch.setattr(budget, "installed", lambda here=here: here)
        assert default_token_budget(MINI, GPU, mx.float16, 512) == expected


@pytest.mark.parametrize(("chip", "numbers"), [("applegpu_g14g", 40), ("applegpu_g16s", 50), ("applegpu_g15d", 50)])
def test_no_more_is_under_way_than_eleven_command_buffers(
    chip: str, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mx, "device_info", lambda: {"architecture": chip})
    monkeypatch.setattr(budget, "_OPERATIONS", {})
    monkeypatch.setattr(budget, "_ELSE_OPERATIONS", 1e99)
    enough = 8 * 11 * numbers * 2**20 * 2
    monkeypatch.setattr(budget, "installed", lambda: enough)
    assert default_token_budget(LARGE, GPU, mx.float16, 512) == 16384
    monkeypatch.setattr(budget, "installed", lambda: enough - 8)
    assert default_token_budget(LARGE, GPU, mx.float16, 512) < 4096


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("chip", "expected"),
    [("applegpu_g14g", 2048), ("applegpu_g16s", 4096), ("applegpu_g15d", 8192), ("sm_90", 4096), ("", 4096)],
)
def test_larger_chips_get_more_tokens(chip: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "device_info", lambda: {"architecture": chip})
    assert default_token_budget(LARGE, GPU, mx.float16, 512) == expected


def test_budgets_are_powers_of_two_within_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for here in (1, 2**28, 2**30, 2**32, 2**34, 2**40):
        monkeypatch.setattr(budget, "installed", lambda here=here: here)
        found.append(default_token_budget(MINI, GPU, mx.float16, 64))
    assert found == sorted(found)
    assert {512, 16384} < set(found) < {512 << power for power in range(6)}


@pytest.mark.parametrize(("heads", "fused"), [(12, True), (24, False), (10, True), (8, True), (6, True), (4, False)])
def test_fused_attention_holds_no_scores(heads: int, fused: bool) -> None:
    """Heads of 64, 32, 72, 96, 128 and 192."""
    hidden = {10: 720}.get(heads, 768)
    longer = cost(hidden, 12, heads, 3072).bytes(8192, 2) > cost(hidden, 12, heads, 3072).bytes(64, 2)
    assert longer != fused


def test_the_memory_of_this_machine() -> None:
    assert memory.installed() == pytest.approx(psutil.virtual_memory().total, rel=0.01)


def test_on_a_cpu_a_batch_fits_the_caches() -> None:
    for model in (MINI, LARGE):
        assert default_token_budget(model, CPU, mx.float32, 512) == 512


def test_this_machine(tiny: Path) -> None:
    assert 512 <= Reranker(tiny, device="cpu").token_budget <= 8192
    assert Reranker(tiny, device="cpu", token_budget=77).token_budget == 77
