"""The hand-written model: masks, positions, bounds and dtypes."""

from pathlib import Path

import bounds
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from checkpoints import TINY, shape_of

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.errors import InputError
from mlx_rerank.models.encoders.post_norm import SelfAttention
from mlx_rerank.models.encoders.xlm_roberta import XLMRoberta
from mlx_rerank.models.shape import check_input_ids

pytestmark = pytest.mark.numeric

CONFIG = shape_of(TINY)


@pytest.fixture(scope="module")
def model(tiny: Path) -> XLMRoberta:
    model = Checkpoint.open(tiny).load(mx.float32, keep_quantized=False)
    assert isinstance(model, XLMRoberta)
    return model


def test_padding_changes_nothing(model: XLMRoberta) -> None:
    row = [0, 5, 6, 7, 2, 2, 9, 10, 2]
    alone = model(mx.array([row]))
    padded = mx.array([row + [1] * 7, [0, *range(4, 18), 2]])
    together = model(padded, mx.array([[True] * 9 + [False] * 7, [True] * 16]))
    np.testing.assert_allclose(np.array(together[0]), np.array(alone[0]), rtol=0, atol=bounds.COMPANY)


def test_masked_tokens_are_not_seen(model: XLMRoberta) -> None:
    mask = mx.array([[True] * 6 + [False] * 2])
    first = model(mx.array([[0, 5, 2, 2, 6, 2, 30, 31]]), mask)
    second = model(mx.array([[0, 5, 2, 2, 6, 2, 40, 41]]), mask)
    assert mx.array_equal(first, second)


def test_positions_count_real_tokens_from_the_padding_id(model: XLMRoberta) -> None:
    ids = mx.array([[0, 5, 1, 6, 2]])  # a padding id inside the text, as "<pad>" in a document gives
    words, positions = model.embeddings.word_embeddings, model.embeddings.position_embeddings
    expected = model.embeddings.norm(words(ids) + positions(mx.array([[2, 3, 1, 4, 5]])))
    found, expected = np.array(model.embeddings(ids)), np.array(expected)
    most = bounds.of_sum(2 * CONFIG.hidden_size) * np.abs(expected).max()  # two sums of so many, for mean and variance
    np.testing.assert_allclose(found, expected, rtol=0, atol=most)


def test_word_order_matters(model: XLMRoberta) -> None:
    one, other = model(mx.array([[0, 5, 2, 2, 6, 7, 2]])), model(mx.array([[0, 5, 2, 2, 7, 6, 2]]))
    assert abs(float(one[0]) - float(other[0])) > 1e-3


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
def test_logits_are_float32_whatever_the_layers_are(dtype: mx.Dtype) -> None:
    model = XLMRoberta(CONFIG)
    model.set_dtype(dtype)
    logits = model(mx.array([[0, 5, 2, 2, 6, 2]]))
    assert logits.dtype == mx.float32
    assert logits.shape == (1,)


@pytest.mark.parametrize("dtype", [mx.int32, mx.float32])
def test_a_mask_that_is_not_bool_is_refused(model: XLMRoberta, dtype: mx.Dtype) -> None:
    with pytest.raises(InputError, match="attention_mask must be bool"):
        model(mx.array([[0, 5, 2, 2, 6, 2]]), mx.ones((1, 6), dtype=dtype))


def test_more_tokens_than_positions_are_refused(model: XLMRoberta) -> None:
    with pytest.raises(InputError, match="65 tokens exceed the model's 64"):
        model(mx.full((1, 65), 5, dtype=mx.int32))
    model(mx.full((1, 64), 5, dtype=mx.int32))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.full((1, 65), 5), "65 tokens exceed the model's 64"),
        (np.array([[0, 120, 2]]), "token id 120 is outside the model's vocabulary of 120"),
        (np.array([[0, -1, 2]]), "token id -1 is outside"),
        (np.zeros((0, 5), dtype=int), "non-empty"),
        (np.zeros((5, 0), dtype=int), "non-empty"),
        (np.zeros(5, dtype=int), "non-empty"),
    ],
)
def test_ids_are_checked_before_mlx_sees_them(ids: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_input_ids(ids, CONFIG)


def test_the_last_layers_queries_are_one_product_if_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product of three dimensions would be one for each pair."""
    attention, seen, product = SelfAttention(CONFIG), [], mx.quantized_matmul
    attention["qkv_proj"] = nn.QuantizedLinear.from_linear(attention.qkv_proj, group_size=32, bits=8)
    x = mx.random.normal((3, 5, CONFIG.hidden_size))
    whole = np.array(attention(x, None)[:, :1])
    monkeypatch.setattr(mx, "quantized_matmul", lambda x, *a, **k: (seen.append(x.shape), product(x, *a, **k))[1])
    found = np.array(attention(x, None, first_token_only=True))
    assert seen == [(3, CONFIG.hidden_size), (3, 5, CONFIG.hidden_size)]
    np.testing.assert_allclose(found, whole, rtol=0, atol=bounds.COMPANY)
