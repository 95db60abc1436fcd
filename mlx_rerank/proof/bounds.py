"""How far apart two right answers may be, from the arithmetic alone.

A matrix product is a sum whose order the processor's kernel chooses, and with it the last bits of every score. A bound
read off one machine's output is therefore wrong on the next. Those here follow from three things: the unit roundoff u
of the dtype, how long the sums are, and how large the numbers in them are.

One sum. A float sum of n terms in any order is the exact sum of terms of which each is off by a factor of at most
gamma_n = n u / (1 - n u) (Higham, Accuracy and Stability of Numerical Algorithms, 2002, chapter 3). That is the worst
case, in which all roundings go the same way. They do not: as independent errors of mean zero they add up to
lambda sqrt(n) u, except with a probability of 2 exp(-lambda^2 / 2) (Higham and Mary, SIAM J. Sci. Comput. 41, 2019,
theorem 2.4). This probabilistic bound is the one used, since gamma_n would let errors of several times sqrt(n) pass
for rounding; gamma_n takes its place in sums of fewer than lambda^2 terms, where it is the smaller. The factor is on
the sum of the terms' sizes; where their signs are independent as well, it is on the root of the sum of their squares
(Higham and Mary, SIAM J. Sci. Comput. 42, 2020), which is what `product` does. Blocks, pairs, several accumulators and
fused multiplications only shorten the chains of roundings, so the bounds hold for every kernel.

A network. Its layers end with a normalisation, so that an error handed on keeps its size beside the numbers around it,
and errors of operations one after the other add up as independent ones: to lambda u sqrt(n1 + n2 + ...), over all sums.
That no layer magnifies what it is given by more than lambda leaves room for is a property of weights whose scores do
not saturate softmax, as in the tiny checkpoint and the embedded model; it is no theorem.

Two answers that are both rounded differ by sqrt(2) times as much as one of them from the exact one. What the package
promises in words is stricter in places, and is tested as it is promised.
"""

import math
from typing import Any

import numpy as np

from mlx_rerank.models.shape import Shape

UNIT = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # half the distance from 1 to the next number
LAMBDA = (
    5.0  # a sum is farther off once in 130,000 times, if all roundings are as large as can be; theirs are 0.4 of it
)


def of_sum(terms: int, dtype: str = "float32") -> float:
    """Return how far a sum of so many terms is off, as a share of the sum of their sizes."""
    unit = UNIT[dtype]
    return min(LAMBDA * math.sqrt(terms) * unit, terms * unit / (1 - terms * unit))


def product(x: np.ndarray, y: np.ndarray, dtype: str = "float32") -> np.ndarray:
    """Return how far each entry of the rounded x @ y is off, for entries of independent signs.

    A sum that has come to k terms is as large as the root of the sum of their squares, and each rounding is on that.
    """
    wide = x.astype(np.float64), y.astype(np.float64)
    return of_sum(x.shape[-1], dtype) * np.sqrt(wide[0] ** 2 @ wide[1] ** 2)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, weights: np.ndarray, dtype: str = "float32") -> np.ndarray:
    """Return how far each entry of attention is off, for entries of independent signs.

    A weight is off, as a share of itself, by what its score is off; the sums of softmax and of the values add to that.
    Half precision sums up in float32, and rounds scaled queries, scores, weights and results.

    Args:
        q: float64 [..., N, D], scaled.
        k: float64 [..., L, D].
        v: float64 [..., L, D].
        weights: float64 [..., N, L], the exact ones.
        dtype: of the queries, keys and values that are given to the device.

    Returns:
        float64 [..., N, D].
    """
    half = 0.0 if dtype == "float32" else UNIT[dtype]
    keys = np.swapaxes(k, -1, -2)
    terms = (q.shape[-1] * UNIT["float32"] ** 2 + half**2) * (q**2 @ keys**2)
    share = terms + half**2 * (q @ keys) ** 2 + 2 * k.shape[-2] * UNIT["float32"] ** 2 + half**2
    return LAMBDA * np.sqrt((weights**2 * share) @ v**2) + UNIT[dtype] * np.abs(weights @ v)


def packed(x: np.ndarray, weight: np.ndarray, dtype: str = "float32") -> np.ndarray:
    """Return how far each entry of x @ weight^T is off where the weight is packed, for entries of independent signs.

    A weight is a scale times a whole number, plus an offset: of these two each is up to twice as large as the largest
    weight, and each may be rounded to the dtype before they are added, or be summed up on its own.

    Args:
        x: float64 [..., D].
        weight: float64 [F, D], unpacked.
        dtype: of the product.
    """
    half = 0.0 if dtype == "float32" else UNIT[dtype]
    share = math.sqrt(2 * (x.shape[-1] * UNIT["float32"] ** 2 + half**2))
    size = 2 * np.abs(weight).max() * np.linalg.norm(x, axis=-1, keepdims=True)
    return LAMBDA * share * size + UNIT[dtype] * np.abs(x @ weight.T)


def rounded(operations: int, size: Any, dtype: str = "float32") -> Any:
    """Return how far numbers of a size are off after so many operations on each of them, in the worst case."""
    return operations * UNIT[dtype] / (1 - operations * UNIT[dtype]) * size


def forward(shape: Shape, length: int, dtype: str = "float32") -> float:
    """Return the relative error of the hidden states after all layers, for pairs of so many tokens.

    Half precision sums up in float32 and rounds what it hands on, once an operation and not once a term.
    """
    sums = _sums(shape, length)
    return LAMBDA * math.sqrt(sum(sums) * UNIT["float32"] ** 2 + (dtype != "float32") * len(sums) * UNIT[dtype] ** 2)


def gradient(shape: Shape, length: int, dtype: str = "float32") -> float:
    """Return the relative difference, by norm, of two gradients of the same loss, and of the loss.

    Backwards each product is two more of the same lengths or, for a weight, as long as there are tokens; these sums are
    over pairs that have errors of their own already. So there are three passes' errors.
    """
    return math.sqrt(2) * math.sqrt(3) * forward(shape, length, dtype)


def logits(shape: Shape, length: int, out: np.ndarray, dtype: str = "float32") -> float:
    """Return how far apart two logits of a pair may be.

    A logit is the sum of `out` times numbers that tanh keeps below 1, whose errors have independent signs.

    Args:
        shape: of the model.
        length: tokens of the pair.
        out: weight of the last projection.
        dtype: of the layers.
    """
    return math.sqrt(2) * forward(shape, length, dtype) * float(np.linalg.norm(out))


def _sums(shape: Shape, length: int) -> list[int]:
    """Return the lengths of the sums between a token's id and the logit, one after the other."""
    D, F = shape.hidden_size, shape.intermediate_size
    norm = [D, D]  # mean and variance
    attention = [D, D // shape.num_attention_heads, length, length, D]  # q k v, scores, softmax, values, projection
    return norm + shape.num_hidden_layers * (attention + norm + [D, F] + norm) + [D, D]
