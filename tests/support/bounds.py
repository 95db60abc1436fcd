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
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest

from mlx_rerank.models.shape import Shape
from mlx_rerank.scoring.results import RankedDocument

Id = TypeVar("Id")
UNIT = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # half the distance from 1 to the next number
LAMBDA = (
    5.0  # a sum is farther off once in 130,000 times, if all roundings are as large as can be; theirs are 0.4 of it
)
COMPANY = 1e-5  # |delta logit| of trained weights by what is scored beside a pair, as Reranker's documentation promises
TINY = 1.25e-4  # the same for the tiny checkpoint, whose weights are far larger than trained ones: `logits` says so
SCORE = COMPANY / 4 + 2 * UNIT["float32"]  # the slope of the sigmoid is at most 1/4; and two scores are rounded


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


def rounded(operations: int, size: Any, dtype: str = "float32") -> Any:
    """Return how far numbers of a size are off after so many operations on each of them, in the worst case."""
    return operations * UNIT[dtype] / (1 - operations * UNIT[dtype]) * size


def forward(shape: Shape, length: int, dtype: str = "float32") -> float:
    """Return the relative error of the hidden states after all layers, for pairs of so many tokens.

    Half precision sums up in float32 and rounds what it hands on, once an operation and not once a term.
    """
    sums = _sums(shape, length)
    return LAMBDA * math.sqrt(sum(sums) * UNIT["float32"] ** 2 + (dtype != "float32") * len(sums) * UNIT[dtype] ** 2)


def gradient(shape: Shape, length: int) -> float:
    """Return the relative difference, by norm, of two float32 gradients of the same loss, and of the loss.

    Backwards each product is two more of the same lengths or, for a weight, as long as there are tokens; these sums are
    over pairs that have errors of their own already. So there are three passes' errors.
    """
    return math.sqrt(2) * math.sqrt(3) * forward(shape, length)


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


def near(value: float, *, raw: bool = False) -> Any:
    """Return what a score, or a logit if raw, of the same pair in another batch is equal to."""
    return pytest.approx(value, rel=0, abs=TINY if raw else TINY / 4 + 2 * UNIT["float32"])


def ranking(rows: Iterable[tuple[Id, Any]], *, raw: bool = False) -> list[tuple[Id, Any]]:
    """Return what the same ranking is equal to when it is made again, its order and nearly its scores.

    Args:
        rows: of a ranking, best first: whatever names a document, and its score. Two scores are the same, as those of
            one text are, or so far apart that rounding cannot exchange them.
        raw: whether the scores are logits.
    """
    rows = list(rows)
    apart([score for _, score in rows], raw=raw)
    return [(name, near(score, raw=raw)) for name, score in rows]


def again(results: Sequence[RankedDocument], *, raw: bool = False) -> list[RankedDocument]:
    """Return what the results of the same call are equal to when it is made again, in whatever company."""
    apart([result.score for result in results], raw=raw)
    return [replace(result, score=near(result.score, raw=raw)) for result in results]


def apart(scores: Sequence[float], *, raw: bool = False, logit: float = COMPANY) -> None:
    """Check that no rounding can change the order of scores, best first.

    Args:
        scores: to be as they are, or so far apart; the same ones are of the same text.
        raw: whether they are logits.
        logit: how far a logit may be off; a score is off by as much times the sigmoid's slope there, and rounded.
    """
    values = np.asarray(scores, dtype=np.float64)
    errors = np.full_like(values, logit) if raw else logit * values * (1 - values) + rounded(2, values)
    gaps = values[:-1] - values[1:]
    assert ((gaps == 0) | (gaps > errors[:-1] + errors[1:])).all(), f"ranked by chance: {scores}"
