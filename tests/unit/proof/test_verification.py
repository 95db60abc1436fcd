"""Every reason for which a report does not pass, one at a time, or for which there is none."""

import math
from dataclasses import replace
from unittest.mock import Mock

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_rerank.errors import DeviceError
from mlx_rerank.proof.fidelity import Fidelity
from mlx_rerank.proof.verification import TOLERANCES, Peak, PublishedLogit, Verification
from mlx_rerank.proof.verify import _states

NEAR = Fidelity(10, 1e-5, 1e-6, 1e-6, 1e-7, 0.999, 0.99, 1.0)
SOUND = Verification(
    model="m", reference="r", dtype="float32", device="cpu", tolerance=TOLERANCES["float32"], fidelity=NEAR,
    different_tokens=0, max_length=512, truncated_pairs=0, followed=8, drifts={"embeddings": 1e-7, "layers.0": 1e-6},
    peak=Peak(20.0, "layers.0.up_proj"), published=(PublishedLogit("q", "d", 1.0, 1.001),), error=None, about={},
)  # fmt: skip


def test_a_sound_report_passes() -> None:
    assert SOUND.passed
    assert SOUND.first_drift is None
    assert dict(SOUND.rows())["result"] == "passed"
    assert SOUND.to_dict()["float16_share"] == pytest.approx(20 / 65504)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"fidelity": replace(NEAR, max_logit=1.1e-4)}, "the largest |delta logit| is 0.00011, 0.0001 allowed"),
        ({"fidelity": replace(NEAR, max_logit=math.nan)}, "the largest |delta logit| is nan"),
        ({"fidelity": replace(NEAR, tau=0.98)}, "Kendall's tau is 0.9800 on average, 0.99 asked for"),
        ({"drifts": {"embeddings": 1e-7, "layers.0": 1e-3, "layers.1": 1e-2}}, "hidden states drift from layers.0 on"),
        ({"drifts": {"embeddings": math.inf}}, "hidden states drift from embeddings on: inf there"),
        ({"different_tokens": 2}, "2 pairs are tokenised otherwise"),
        ({"dtype": "float16", "peak": Peak(7e4, "layers.0")}, "an activation of 7e+04 at layers.0 is beyond float16's"),
        ({"published": (PublishedLogit("what is", "d", 1.0, 1.03),)}, "published 1.0000, found 1.0300 for 'what is'"),
        ({"fidelity": None, "error": "logits are NaN"}, "logits are NaN"),
    ],
)
def test_each_problem_alone(change: dict, problem: str) -> None:
    report = replace(SOUND, **change)
    assert len(report.problems) == 1
    assert report.problems[0].startswith(problem)
    assert not report.passed
    assert report.to_dict()["passed"] is False
    assert dict(report.rows())["result"].startswith("FAILED: ")


def test_a_wide_activation_matters_in_float16_alone() -> None:
    wide = replace(SOUND, peak=Peak(7e4, "layers.0"))
    assert wide.passed
    assert "106.86% of float16's range" in dict(wide.rows())["largest activation"]


def test_rankings_that_cannot_be_compared_are_left_out() -> None:
    alone = replace(SOUND, fidelity=replace(NEAR, tau=None, lowest_tau=None, top10_overlap=None))
    assert alone.passed
    assert {"Kendall tau", "top-10 overlap"}.isdisjoint(dict(alone.rows()))


def test_a_device_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "eval", Mock(side_effect=RuntimeError("[METAL] Command buffer execution failed")))
    with pytest.raises(DeviceError, match="Command buffer execution failed"):
        _states([], nn.Tanh(), {"x": mx.ones(2)})
