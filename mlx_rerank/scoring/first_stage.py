"""Two models in a row: a fast one reads every candidate, a strong one only the best of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.errors import InputError, NonFiniteScoreError, StoppedError
from mlx_rerank.pairs.arguments import Document, require_whole_number
from mlx_rerank.scoring.loaded import LoadedModel, ModelOptions
from mlx_rerank.scoring.results import PairLogits, RankedDocument, Selection, log_truncation
from mlx_rerank.scoring.stopping import Stop

KEEP = 20  # candidates: benchmarks/cascade.py measures what other numbers cost and save
Pair = tuple[str, str]


@runtime_checkable
class Loaded(Protocol):
    """All that this file knows of a Reranker."""

    model: LoadedModel
    first_stage: "FirstStage | None"


class FirstStage:
    """A fast model, and how many candidates it leaves to a strong one.

    Dropped candidates are left out, as if not retrieved: scores of two models cannot be sorted together.
    """

    def __init__(self, model: LoadedModel, keep: int) -> None:
        """Take over a loaded model.

        Args:
            model: the fast one.
            keep: candidates that it leaves.
        """
        self.model, self.keep = model, keep

    @classmethod
    def load(cls, model: str | Path | Loaded | None, keep: int | None, options: ModelOptions) -> "FirstStage | None":
        """Return the first stage, or None if none is asked for.

        Args:
            model: a name or a directory; or a reranker, which stays as it is.
            keep: candidates that it leaves; 20 if None.
            options: of the strong model. A first stage loaded by name shares them, except the revision; its own limit
                replaces a larger max_length.

        Raises:
            InputError: keep is below one, or there is no model for it, or the model has a first stage itself.
            RerankError: as `Reranker`.
        """
        if model is None:
            if keep is not None:
                raise InputError(f"keep={keep} needs a first stage: name its model with first_stage, or leave keep out")
            return None
        keep = KEEP if keep is None else require_whole_number("keep", keep)
        if isinstance(model, Loaded):
            if model.first_stage is not None:
                raise InputError("first_stage has a first stage itself: give a Reranker that has none")
            return cls(model.model, keep)
        if not isinstance(model, str | Path):
            kind = type(model).__name__
            raise InputError(f"first_stage must be a name, a directory or a Reranker, not a {kind}: {model!r:.60}")
        checkpoint = Checkpoint.open(model, cache_dir=options.cache_dir)
        options = replace(options, revision=None, template=None, instruction=None)
        if options.max_length is not None:
            wanted = require_whole_number("max_length", options.max_length, least=0)
            options = replace(options, max_length=min(wanted, checkpoint.shape.max_length))
        try:
            return cls(LoadedModel(checkpoint.directory, options), keep)
        except InputError as error:
            raise InputError(
                f"first_stage {str(model)!r}: {error}; or give a Reranker that was loaded with other options"
            ) from None

    def rank(
        self,
        strong: LoadedModel,
        documents: Sequence[Document],
        pairs: Sequence[Pair],
        wanted: Selection,
        stop: Stop,
        show_progress: bool | None,
    ) -> list[RankedDocument]:
        """Return the ranking, by the strong model, of the candidates that this one keeps.

        Args:
            strong: the strong model. If there are no more candidates than are kept, it reads them all.
            documents: the candidates.
            pairs: each one's text with the query.
            wanted: which of them are returned.
            stop: when to end before both models are done.
            show_progress: as for `Reranker.rank`.

        Raises:
            InputError: more are wanted than are kept.
            RerankError: as `Reranker.rank`; the message names the stage.
        """
        if wanted.top_n is not None and wanted.top_n > self.keep:
            raise InputError(
                f"top_n {wanted.top_n} is more than the {self.keep} documents that the first stage keeps: "
                "ask for fewer, or load the Reranker with a larger keep"
            )
        if len(pairs) <= self.keep:
            scored = strong.logits(pairs, strong.limits, stop, show_progress=show_progress)
            return scored.ranking(documents, wanted)
        kept = self._choose(pairs, stop, show_progress)
        places = kept.tolist()
        scored = _logits(kept, strong, [pairs[i] for i in places], stop, show_progress)
        ranking = scored.ranking([documents[i] for i in places], wanted)
        return [replace(result, index=places[result.index]) for result in ranking]

    def _choose(self, pairs: Sequence[Pair], stop: Stop, show_progress: bool | None) -> np.ndarray:
        """Return the places of the best pairs, in the order given, so that equal scores of the second stage keep it."""
        found = _logits(None, self.model, pairs, stop, show_progress)
        log_truncation(found.truncated_tokens, self.model.limits.max_length)  # no result shows it
        return np.sort(np.argsort(-found.logits, kind="stable")[: self.keep])


def _logits(
    places: np.ndarray | None, model: LoadedModel, pairs: Sequence[Pair], stop: Stop, show_progress: bool | None
) -> PairLogits:
    """Return the logits of a stage's pairs.

    Args:
        places: of the second stage's pairs in the caller's list; None in the first, whose logits no caller sees.
        model: the stage's.
        pairs: that it reads.
        stop: when to end before it is done.
        show_progress: as for `Reranker.rank`.

    Raises:
        RerankError: as `LoadedModel.logits`, with the name of the stage and the caller's places of what was scored.
    """
    where = "first stage" if places is None else f"second stage, of {len(places)} documents kept"
    try:
        return model.logits(pairs, model.limits, stop, show_progress=show_progress)
    except StoppedError as error:
        done = slice(0) if places is None else slice(None)
        indices = error.indices[done] if places is None else places[error.indices]
        held = (error.logits[done], error.truncated_tokens[done], error.spans[done])
        raise type(error)(f"in the {where}: {error}", indices, *held) from None
    except InputError as error:
        raise InputError(f"in the {where}: {error}") from None
    except NonFiniteScoreError as error:
        counted = " (Pairs are counted among those kept)" if places is not None else ""
        raise NonFiniteScoreError(f"in the {where}: {error}{counted}") from None
