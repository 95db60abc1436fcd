"""The parity report: what `verify` found, what it allows, and how both read."""

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_rerank.checkpoints.config import read_object
from mlx_rerank.errors import CheckpointError
from mlx_rerank.proof.fidelity import Fidelity

FLOAT16_MAX = 65504.0
PUBLISHED_TOLERANCE = 2e-2  # of published logits; most were computed in float16


@dataclass(frozen=True)
class Tolerance:
    """How much a model may differ and still pass.

    Args:
        logit: largest |delta logit|.
        drift: root mean square of a hidden state's error, as a share of the state's own.
        tau: least Kendall tau, averaged over queries.
    """

    logit: float
    drift: float
    tau: float


TOLERANCES = {
    "float32": Tolerance(1e-4, 1e-4, 0.99),
    "float16": Tolerance(2e-2, 2e-2, 0.99),
    "bfloat16": Tolerance(0.25, 0.1, 0.95),
    "packed": Tolerance(0.25, 0.1, 0.95),  # in any dtype, against weights that are not packed
}


@dataclass(frozen=True)
class PublishedLogit:
    """A logit that the model's makers published, and what came out here."""

    query: str
    document: str
    expected: float
    found: float


@dataclass(frozen=True)
class Peak:
    """The largest magnitude among the inputs and results of all modules, and the path of the module it was found at."""

    value: float
    path: str

    @property
    def float16_share(self) -> float:
        """Share of float16's range; at 1 it overflows."""
        return self.value / FLOAT16_MAX


@dataclass(frozen=True)
class Verification:
    """How far a model on MLX is from the PyTorch reference.

    Args:
        model: as it was named.
        reference: whose weights the reference ran, in float32.
        dtype: that MLX computed in.
        device: that MLX ran on.
        tolerance: what was allowed.
        fidelity: distances of logits, scores and rankings; None where some logits were not finite.
        different_tokens: pairs that the reference's tokenizer reads differently, or cuts elsewhere.
        max_length: most tokens of a pair.
        truncated_pairs: how many were cut to that.
        followed: pairs whose hidden states and activations were looked at.
        drifts: relative error of the hidden state after the embeddings and after each layer, by module path; infinite
            where a state is not finite.
        peak: the largest activation.
        published: logits that the model's makers published, of pairs that are not cut.
        error: what stopped the comparison of logits.
        about: date, machine and versions.
    """

    model: str
    reference: str
    dtype: str
    device: str
    tolerance: Tolerance
    fidelity: Fidelity | None
    different_tokens: int
    max_length: int
    truncated_pairs: int
    followed: int
    drifts: dict[str, float]
    peak: Peak
    published: tuple[PublishedLogit, ...]
    error: str | None
    about: dict[str, str]

    @property
    def first_drift(self) -> str | None:
        """Path of the first module whose hidden state is beyond the tolerance."""
        return next((path for path, drift in self.drifts.items() if not drift <= self.tolerance.drift), None)

    @property
    def problems(self) -> list[str]:
        """Why the model does not pass, a sentence each; empty where it does."""
        found, allowed = [self.error] if self.error else [], self.tolerance
        if self.first_drift:
            drift = self.drifts[self.first_drift]
            found.append(f"hidden states drift from {self.first_drift} on: {drift:.2g} there, {allowed.drift} allowed")
        if self.different_tokens:
            found.append(f"{self.different_tokens} pairs are tokenised otherwise by the reference")
        if self.fidelity and not self.fidelity.max_logit <= allowed.logit:
            found.append(f"the largest |delta logit| is {self.fidelity.max_logit:.2g}, {allowed.logit} allowed")
        if self.fidelity and self.fidelity.tau is not None and not self.fidelity.tau >= allowed.tau:
            found.append(f"Kendall's tau is {self.fidelity.tau:.4f} on average, {allowed.tau} asked for")
        if self.dtype == "float16" and not self.peak.value <= FLOAT16_MAX:
            found.append(f"an activation of {self.peak.value:.3g} at {self.peak.path} is beyond float16's range")
        near = max(PUBLISHED_TOLERANCE, allowed.logit)
        off = [one for one in self.published if not abs(one.found - one.expected) <= near]
        found += [f"published {one.expected:.4f}, found {one.found:.4f} for {one.query[:40]!r}" for one in off]
        return found

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON takes it: with null for what is not finite."""
        derived = {"passed": self.passed, "problems": self.problems, "first_drift": self.first_drift}
        return _finite({**derived, **asdict(self), "float16_share": self.peak.float16_share})

    def rows(self) -> list[tuple[str, str]]:
        """Return the report as names and values for a person."""
        near, allowed = self.fidelity, self.tolerance
        rows = [("reference", self.reference), ("computed in", f"{self.dtype} on {self.device}")]
        if near:
            rows += [
                ("pairs", f"{near.pairs}, of which {self.truncated_pairs} cut to {self.max_length} tokens"),
                ("|delta logit|", f"max {near.max_logit:.1e}, mean {near.mean_logit:.1e} (allowed {allowed.logit})"),
                ("|delta score|", f"max {near.max_score:.1e}, mean {near.mean_score:.1e}"),
            ]
        if near and near.tau is not None:
            rows.append(("Kendall tau", f"{near.tau:.4f} mean, {near.lowest_tau:.4f} lowest (asked {allowed.tau})"))
        if near and near.top10_overlap is not None:
            rows.append(("top-10 overlap", f"{near.top10_overlap:.4f}"))
        rows.append(("followed inside", f"{self.followed} of them, from the shortest to the longest"))
        if self.drifts:
            worst = max(self.drifts, key=lambda path: self.drifts[path])
            rows.append(("hidden states", f"drift {self.drifts[worst]:.1e} at most, at {worst}"))
        share = f"{self.peak.float16_share:.2%} of float16's range"
        rows.append(("largest activation", f"{self.peak.value:.1f} at {self.peak.path}, {share}"))
        if self.published:
            furthest = max(abs(one.found - one.expected) for one in self.published)
            rows.append(("published logits", f"{len(self.published)}, max |delta| {furthest:.1e}"))
        return [*rows, ("result", "passed" if self.passed else "FAILED: " + "; ".join(self.problems))]


def _finite(value: Any) -> Any:
    """Return a tree of dicts, lists and values in which None stands for infinities and NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


REPORT_FILE = "verification.json"  # in a converted directory
_HEADING = "\n## Verified against PyTorch\n"


def store(report: Verification, directory: Path) -> None:
    """Add a report to a converted directory: as JSON, and as a section of its model card if it has one.

    Raises:
        OSError: the directory cannot be written to.
    """
    _replace(directory / REPORT_FILE, json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n")
    card = directory / "README.md"
    if not card.is_file():
        return
    before, _, after = card.read_text(encoding="utf-8").partition(_HEADING)
    _, mark, after = after.partition("\n## ")  # whatever section was added behind it
    rows = "".join(f"| {_cell(name)} | {_cell(value)} |\n" for name, value in report.rows())
    about = ", ".join(f"{name} {value}" for name, value in report.about.items())
    section = f"{_HEADING}\n| | |\n|---|---|\n{rows}\nMeasured by `mlx-rerank verify`: {about}.\n"
    _replace(card, before.rstrip() + "\n" + section + mark + after)


def failed_verification(directory: Path) -> bool:
    """Tell whether a directory holds a report of a failed verification."""
    try:
        return (read_object(directory / REPORT_FILE) or {}).get("passed") is False
    except CheckpointError:
        return False


def _cell(text: str) -> str:
    """Return a text as a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _replace(path: Path, text: str) -> None:
    """Write a file at once or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
