"""MLX against PyTorch, on one's own machine, model and texts."""

import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_rerank.checkpoints import hub
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.config import conversion_record
from mlx_rerank.checkpoints.mapped import Inputs
from mlx_rerank.convert.trim import renumbering
from mlx_rerank.device import kernels
from mlx_rerank.device.arrays import telling, to_numpy
from mlx_rerank.errors import InputError, NonFiniteScoreError
from mlx_rerank.models.family import InTransformers
from mlx_rerank.models.templates import declared
from mlx_rerank.pairs.arguments import check_pairs
from mlx_rerank.pairs.batching import pad
from mlx_rerank.pairs.encoded import Row
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.samples import sample_pairs
from mlx_rerank.proof.fidelity import Fidelity, compare
from mlx_rerank.proof.published import PUBLISHED
from mlx_rerank.proof.reference import ReferenceReranker, ReferenceRow, require_reference
from mlx_rerank.proof.verification import TOLERANCES, Peak, PublishedLogit, Tolerance, Verification
from mlx_rerank.proof.watching import watched
from mlx_rerank.scoring.reranker import Reranker

_FOLLOWED = 8  # pairs whose hidden states are compared

Pairs = list[tuple[str, str]]
Followed = tuple[Row, ReferenceRow]  # one pair, as the model has it and as the reference has it


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
) -> Verification:
    """Compare a model's logits, rankings and hidden states with those of PyTorch in float32.

    Args:
        model: a name, hub id or directory, as `Reranker` takes it.
        against: the checkpoint whose weights the reference runs, such as the one that a packed model was made from.
            The model itself if None, so that packed weights are compared with the same weights unpacked.
        against_revision: branch, tag or commit of `against`, if it is a hub model.
        pairs: (query, document) pairs; the package's own samples if None. Where the model's vocabulary was trimmed and
            `against` has all of it, pairs that lose a token are left out, and the report says how many.
        dtype: that MLX computes in; the device's default if None.
        device: that MLX runs on.
        max_length: most tokens of a pair.
        tolerance: largest |delta logit| to pass. If None, set by the dtype and, against other weights, by how the
            model's weights are stored.
        revision: of a hub model.

    Raises:
        MissingDependencyError: torch or scipy is not installed.
        InputError: there are no pairs, none keeps its tokens, an argument is out of range, or the two models are of
            different shapes.
        CheckpointNotFoundError: a name leads nowhere.
        CheckpointError: a checkpoint cannot be used; its subclasses say why.
    """
    require_reference()
    if tolerance is not None and not 0 < tolerance < math.inf:
        raise InputError(f"a tolerance is a number above 0, not {tolerance}")
    checked = check_pairs(sample_pairs() if pairs is None else pairs)
    if not checked:
        raise InputError("there are no pairs to compare on")
    checkpoint = Checkpoint.open(model, revision=revision)
    source = _source(checkpoint, against, against_revision)
    _require_same_shape(checkpoint, source)
    kernels.keep_float32()  # in half precision it changes nothing
    with checkpoint.reading(), source.reading():  # so that all are of the same files
        reranker = Reranker(checkpoint.directory, dtype=dtype, device=device, max_length=max_length)
        prompt = declared(source.raw).get("name")
        reference = ReferenceReranker(source.directory, max_length=reranker.max_length, template=prompt)
        numbers = renumbering(source, checkpoint) if against is not None and _trimmed(checkpoint) else None
    allowed = _allowed(checkpoint, reranker.dtype, against is not None)
    compared, theirs, expected = _comparable(checked, reference.rows(checked), numbers)
    ours = _rows(reranker, compared)
    same = [i for i, row in enumerate(ours) if _as_in_reference(row) == expected[i]]
    followed = _spread([(ours[i], theirs[i]) for i in same])
    drifts, peak = _follow(reranker, reference, checkpoint.family.in_transformers, followed)
    fidelity, truncated, error = _compare_logits(reranker, reference, compared, theirs)
    return Verification(
        model=hub.public_name(model),
        reference=f"PyTorch in float32, {_whose(model, against, checkpoint)}{_left_out(checked, compared)}",
        dtype=reranker.dtype,
        device=reranker.device,
        tolerance=allowed if tolerance is None else Tolerance(tolerance, allowed.drift, allowed.tau),
        fidelity=fidelity,
        different_tokens=len(compared) - len(same),
        max_length=reranker.max_length,
        truncated_pairs=truncated,
        followed=len(followed),
        drifts=drifts,
        peak=peak,
        published=() if error else _published(reranker, str(model), checkpoint),
        error=error,
        about=_about(),
    )


def _source(checkpoint: Checkpoint, against: str | Path | None, revision: str | None) -> Checkpoint:
    """Return the checkpoint whose weights the reference runs."""
    if against is not None:
        return Checkpoint.open(against, revision=revision, template=declared(checkpoint.raw).get("name"))
    if revision is not None:
        raise InputError(f"against_revision {revision!r} is of the model of against: give that too")
    return checkpoint


def _allowed(checkpoint: Checkpoint, dtype: str, other_weights: bool) -> Tolerance:
    """Return the tolerance by the dtype and, if the reference has other weights, by how the model's are stored."""
    kinds = [dtype]
    if other_weights:
        stored = str(checkpoint.raw.get("dtype") or checkpoint.raw.get("torch_dtype")).removeprefix("torch.")
        kinds.append("packed" if checkpoint.quantized or stored not in TOLERANCES else stored)
    return max((TOLERANCES[kind] for kind in kinds), key=lambda allowed: allowed.logit)


def _rows(reranker: Reranker, pairs: Pairs) -> list[Row]:
    """Return each pair as MLX gets it."""
    encoded = reranker.encoder.encode(pairs, Limits(reranker.max_length))
    return [encoded.sequences[i] for i in encoded.inverse]


def _as_in_reference(row: Row) -> ReferenceRow:
    """Return one of MLX's rows in the reference's form."""
    second = row.second or row.tokens
    return ReferenceRow(row.ids.tolist(), [0] * second + [1] * (row.tokens - second))


def _trimmed(checkpoint: Checkpoint) -> bool:
    """Tell whether conversion kept only a part of the vocabulary, so that token ids differ from the source's."""
    return "vocabulary" in conversion_record(checkpoint.raw)


def _comparable(
    pairs: Pairs, rows: list[ReferenceRow], numbers: Mapping[int, int] | None
) -> tuple[Pairs, list[ReferenceRow], list[ReferenceRow]]:
    """Return the pairs that can be compared, their rows in the reference, and those they should have in the model.

    `numbers` maps the reference's ids to those of a trimmed vocabulary; None if the vocabularies are the same.

    Raises:
        InputError: no pair has only tokens that were kept.
    """
    if numbers is None:
        return pairs, rows, rows
    kept = [i for i, row in enumerate(rows) if set(row.ids) <= numbers.keys()]
    if not kept:
        raise InputError(
            f"none of the {len(pairs)} pairs keeps its tokens in the trimmed vocabulary: give pairs of texts that are "
            "like those it was trimmed to"
        )
    renumbered = [rows[i]._replace(ids=[numbers[old] for old in rows[i].ids]) for i in kept]
    return [pairs[i] for i in kept], [rows[i] for i in kept], renumbered


def _left_out(pairs: Pairs, compared: Pairs) -> str:
    """Say how many pairs were not compared."""
    left = len(pairs) - len(compared)
    return f"; {left} of {len(pairs)} pairs are left out, which the trimmed vocabulary reads otherwise" if left else ""


def _require_same_shape(checkpoint: Checkpoint, source: Checkpoint) -> None:
    """Refuse to compare models of different families or shapes, naming the first difference."""
    ours = {"family": checkpoint.family.name} | vars(checkpoint.shape)
    theirs = {"family": source.family.name} | vars(source.shape)
    for name, value in ours.items():
        if name == "vocab_size" and _trimmed(checkpoint):
            continue
        if value != theirs.get(name):
            raise InputError(
                f"the model has {name} {value}, the one to compare with {theirs.get(name)}: "
                "give the checkpoint that it was made from"
            )


def _spread(rows: list[Followed]) -> list[Followed]:
    """Return a few pairs, from the shortest to the longest."""
    ordered = sorted(rows, key=lambda row: row[0].tokens)
    places = np.linspace(0, len(ordered) - 1, min(_FOLLOWED, len(ordered))).round()
    return [ordered[int(i)] for i in places]


def _follow(
    reranker: Reranker, reference: ReferenceReranker, its: InTransformers, rows: list[Followed]
) -> tuple[dict[str, float], Peak]:
    """Return the worst relative error of every hidden state, by module path, and the largest activation.

    In the last layer MLX computes one token alone: the last, or else the first.
    """
    drifts: dict[str, float] = {}
    peaks, paths = [Peak(0.0, "")], its.hidden_states(reranker.config)
    for ours, theirs in rows:
        batch = pad([ours], reranker.encoder.pad_token_id)
        states, seen = reranker.engine.apply(partial(_states, paths), batch)
        peaks += seen
        for path, other in zip(paths, reference.hidden_states(theirs), strict=True):
            state = states[path]
            other = other[-len(state) :] if its.last_token else other[: len(state)]
            error = float(np.sqrt(np.square(state - other).mean() / np.square(other).mean()))
            drifts[path] = max(drifts.get(path, 0.0), _or_infinity(error))
    return drifts, max(peaks, key=lambda peak: peak.value)  # the first, where several are infinite


def _states(paths: list[str], model: nn.Module, inputs: Inputs) -> tuple[dict[str, np.ndarray], list[Peak]]:
    """Return the hidden states [L, D] of one pair, and the largest value of every activation; in the device thread."""
    states: dict[str, mx.array] = {}
    peaks: list[tuple[str, mx.array]] = []

    def look(path: str, value: mx.array) -> None:
        peaks.append((path or "the logits", mx.abs(value).max().astype(mx.float32)))

    def see(path: str, value: mx.array) -> None:
        look(path, value)
        if path in paths:
            states[path] = value[0].astype(mx.float32)

    with telling(), watched(model, given=look, result=see):
        mx.eval(model(**inputs), states, peaks)
    found = [Peak(_or_infinity(value.item()), path) for path, value in peaks]
    return {path: to_numpy(state) for path, state in states.items()}, found


def _or_infinity(value: Any) -> float:
    """Return a number, with infinity for NaN, which no comparison would notice."""
    return float(value) if math.isfinite(value) else math.inf


def _compare_logits(
    reranker: Reranker, reference: ReferenceReranker, pairs: Pairs, rows: list[ReferenceRow]
) -> tuple[Fidelity | None, int, str | None]:
    """Return the distances of all logits, how many pairs were cut, and why there are no distances.

    Pairs with the same tokens count once: the order of equals is chance.
    """
    first = {(*row.ids, *row.segments): i for i, row in reversed(list(enumerate(rows)))}
    distinct = [pairs[i] for i in sorted(first.values())]
    try:
        found = reranker.logits(distinct)
        expected = reference.logits(distinct).logits
    except NonFiniteScoreError as error:
        return None, 0, str(error)
    fidelity = compare(found.logits, expected, [query for query, _ in distinct], found.mapping)
    return fidelity, int(np.count_nonzero(found.truncated_tokens)), None


def _published(reranker: Reranker, model: str, checkpoint: Checkpoint) -> tuple[PublishedLogit, ...]:
    """Return the logits published for a model, or for the one it was converted from, and what it gives here."""
    source = conversion_record(checkpoint.raw).get("source", model)
    known = {} if _trimmed(checkpoint) else PUBLISHED.get(source, {})  # a trimmed vocabulary may lack their tokens
    found = reranker.logits(list(known))
    rows = zip(known, found.logits.tolist(), found.truncated_tokens.tolist(), strict=True)
    return tuple(PublishedLogit(*pair, known[pair], logit) for pair, logit, cut in rows if not cut)


def _whose(model: str | Path, against: str | Path | None, checkpoint: Checkpoint) -> str:
    """Say whose weights the reference runs."""
    if against is not None:
        return f"weights of {hub.public_name(against)}"
    return "the same weights, unpacked" if checkpoint.quantized else "the same weights"


def _about() -> dict[str, str]:
    """Return date, machine and versions."""
    versions = {name: version(name) for name in ("mlx-rerank", "mlx", "torch", "transformers")}
    return {"date": date.today().isoformat(), "machine": f"{platform.system()} {platform.machine()}", **versions}
