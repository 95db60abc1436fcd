"""MLX against PyTorch, on one's own machine, model and texts."""

import json
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_rerank import hub
from mlx_rerank.activations import watched
from mlx_rerank.checkpoint import Checkpoint
from mlx_rerank.config import CONVERSION_KEY
from mlx_rerank.errors import InputError, NonFiniteScoreError
from mlx_rerank.fidelity import Fidelity, compare
from mlx_rerank.models.xlm_roberta import CrossEncoder
from mlx_rerank.pairs import Limits, check_pairs
from mlx_rerank.published import PUBLISHED
from mlx_rerank.reference import ReferenceReranker, require_reference
from mlx_rerank.report import TOLERANCES, Peak, PublishedLogit, Report, Tolerance
from mlx_rerank.reranker import Reranker
from mlx_rerank.samples import sample_pairs

REPORT_FILE = "verification.json"  # in a converted directory
_FOLLOWED = 8  # pairs whose hidden states are compared

Pairs = list[tuple[str, str]]


def verify(
    model: str | Path,
    *,
    against: str | Path | None = None,
    against_revision: str | None = None,
    pairs: Iterable[Sequence[str]] | None = None,
    dtype: str | None = None,
    device: str | None = None,
    max_length: int | None = None,
    tolerance: float | None = None,
    revision: str | None = None,
) -> Report:
    """Compare a model's logits, rankings and hidden states with those of PyTorch in float32.

    Args:
        model: a name, hub id or directory, as `Reranker` takes it.
        against: the checkpoint whose weights the reference runs, such as the one that a packed model was made from.
            The model itself if None, so that packed weights are compared with the same weights unpacked.
        against_revision: of the former, where it is a hub model.
        pairs: (query, document) pairs; the package's own samples if None.
        dtype: that MLX computes in; the device's default if None.
        device: that MLX runs on.
        max_length: most tokens of a pair.
        tolerance: largest |delta logit| to pass. If None, by the dtype, or, against other weights, by how the model's
            are kept.
        revision: of a hub model.

    Raises:
        MissingDependencyError: torch or scipy is not installed.
        InputError: there are no pairs, or an argument is out of range.
        CheckpointNotFoundError: a name leads nowhere.
        CheckpointError: a checkpoint cannot be used; its subclasses say why.
    """
    require_reference()
    checked = check_pairs(sample_pairs() if pairs is None else pairs)
    if not checked:
        raise InputError("there are no pairs to compare on")
    directory = hub.resolve(model, revision=revision)
    checkpoint = Checkpoint.open(directory)
    source = directory if against is None else hub.resolve(against, revision=against_revision)
    reference = ReferenceReranker(source, max_length=max_length)
    reranker = Reranker(directory, dtype=dtype, device=device, max_length=reference.max_length)
    allowed = _allowed(checkpoint, reranker.dtype, against is not None)
    same, different = _same_tokens(reranker, reference, checked)
    drifts, peak = _follow(reranker, reference, _spread(same))
    fidelity, error = _compare_logits(reranker, reference, checked)
    return Report(
        model=hub.public_name(model),
        reference=f"PyTorch in float32, {_whose(model, against, checkpoint)}",
        dtype=reranker.dtype,
        device=reranker.device,
        tolerance=allowed if tolerance is None else Tolerance(tolerance, allowed.drift, allowed.tau),
        fidelity=fidelity,
        different_tokens=different,
        drifts=drifts,
        peak=peak,
        published=() if error else _published(reranker, str(model), checkpoint),
        error=error,
        about=_about(),
    )


def store(report: Report, directory: Path) -> None:
    """Add a report to a converted directory: as JSON, and as a section of its model card.

    Raises:
        OSError: the directory cannot be written to.
    """
    card = directory / "README.md"
    text = card.read_text(encoding="utf-8").partition("\n## Verified against PyTorch\n")[0].rstrip()
    rows = "".join(f"| {name.replace('|', chr(92) + '|')} | {value} |\n" for name, value in report.rows())
    about = ", ".join(f"{name} {value}" for name, value in report.about.items())
    section = (
        f"\n\n## Verified against PyTorch\n\n| | |\n|---|---|\n{rows}\nMeasured by `mlx-rerank verify`: {about}.\n"
    )
    _replace(directory / REPORT_FILE, json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")
    _replace(card, text + section)


def _replace(path: Path, text: str) -> None:
    """Write a file at once or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _allowed(checkpoint: Checkpoint, dtype: str, other_weights: bool) -> Tolerance:
    """Return what is allowed by the dtype and, where the reference has other weights, by how the model's are kept."""
    kinds = [dtype]
    if other_weights:
        kinds += ["packed"] if checkpoint.quantized else [str(checkpoint.raw.get("dtype", dtype))]
    return max((TOLERANCES[kind] for kind in kinds), key=lambda allowed: allowed.logit)


def _same_tokens(reranker: Reranker, reference: ReferenceReranker, pairs: Pairs) -> tuple[list[list[int]], int]:
    """Return the token ids of pairs that both tokenizers read alike, and how many they do not."""
    encoded = reranker.encoder.encode(pairs, Limits(reranker.max_length))
    ours = [encoded.sequences[i].tolist() for i in encoded.inverse]
    same = [row for row, theirs in zip(ours, reference.token_ids(pairs), strict=True) if row == theirs]
    return same, len(ours) - len(same)


def _spread(rows: list[list[int]]) -> list[list[int]]:
    """Return a few token sequences, from the shortest to the longest."""
    ordered = sorted(rows, key=len)
    places = np.linspace(0, len(ordered) - 1, min(_FOLLOWED, len(ordered))).round()
    return [ordered[int(i)] for i in places]


def _follow(reranker: Reranker, reference: ReferenceReranker, rows: list[list[int]]) -> tuple[dict[str, float], Peak]:
    """Return the worst relative error of every hidden state, and the largest activation."""
    drifts: dict[str, float] = {}
    peak = Peak(0.0, "")
    for row in rows:
        states, peaks = reranker.engine.apply(lambda model, ids=row: _states(model, ids))
        expected = reference.hidden_states(row)
        for (path, state), other in zip(states.items(), expected, strict=True):
            error = float(np.sqrt(np.square(state - other).mean() / np.square(other).mean()))
            drifts[path] = max(drifts.get(path, 0.0), error if np.isfinite(error) else float("inf"))
        for path, value in peaks.items():
            if not value <= peak.value:
                peak = Peak(value if np.isfinite(value) else float("inf"), path)
    return drifts, peak


def _states(model: CrossEncoder, ids: list[int]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return the hidden states [L, D] of one pair and each module's largest activation; in the device thread."""
    hidden = {"embeddings", *(f"layers.{n}" for n in range(len(model.layers)))}
    states: dict[str, mx.array] = {}
    peaks: dict[str, list[mx.array]] = {}

    def look(path: str, value: mx.array) -> None:
        peaks.setdefault(path or "the logits", []).append(mx.abs(value).max())

    def see(path: str, value: mx.array) -> None:
        look(path, value)
        if path in hidden:
            states[path] = value

    with watched(model, given=look, result=see):
        logits = model(mx.array([ids]))
    mx.eval(logits, states, peaks)
    largest = {path: float(mx.stack([v.astype(mx.float32) for v in values]).max()) for path, values in peaks.items()}
    return {path: np.array(state[0].astype(mx.float32)) for path, state in states.items()}, largest


def _compare_logits(
    reranker: Reranker, reference: ReferenceReranker, pairs: Pairs
) -> tuple[Fidelity | None, str | None]:
    """Return the distances of all logits, or why there are none."""
    try:
        found = reranker.logits(pairs).logits
    except NonFiniteScoreError as error:
        return None, f"MLX: {error}"
    try:
        expected = reference.logits(pairs).logits
    except NonFiniteScoreError as error:
        return None, f"the reference: {error}"
    return compare(found, expected, [query for query, _ in pairs]), None


def _published(reranker: Reranker, model: str, checkpoint: Checkpoint) -> tuple[PublishedLogit, ...]:
    """Return what was published for a model, or for the one it was converted from, and what it gives here."""
    source = checkpoint.raw.get(CONVERSION_KEY, {}).get("source", model)
    known = PUBLISHED.get(source, {})
    found = reranker.logits(list(known)).logits.tolist()
    return tuple(PublishedLogit(*pair, known[pair], logit) for pair, logit in zip(known, found, strict=True))


def _whose(model: str | Path, against: str | Path | None, checkpoint: Checkpoint) -> str:
    """Say whose weights the reference runs."""
    if against is not None:
        return f"weights of {hub.public_name(against)}"
    return "the same weights, unpacked" if checkpoint.quantized else "the same weights"


def _about() -> dict[str, str]:
    """Return date, machine and versions."""
    versions = {name: version(name) for name in ("mlx-rerank", "mlx", "torch", "transformers")}
    return {"date": date.today().isoformat(), "machine": f"{platform.system()} {platform.machine()}", **versions}
