"""The steps of a training run: which documents of which queries, in which order, in which batches.

All of it follows from the seed and the number of the step, so a run that was interrupted goes on with the same steps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlx_rerank.pairs.batching import Batch, Batching, pad
from mlx_rerank.pairs.encoded import Row
from mlx_rerank.pairs.encoder import PairEncoder
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.train.examples import Example
from mlx_rerank.train.options import TrainingOptions

_POOL = 16  # steps whose queries are sorted by length together, so that a step's pairs are of similar length


@dataclass(frozen=True)
class Group:
    """A query's documents of one step, as token ids.

    Args:
        sequences: of each pair.
        labels: of each document.
        teacher: a score of each, or None.
    """

    sequences: list[Row]
    labels: np.ndarray
    teacher: np.ndarray | None

    @property
    def longest(self) -> int:
        """Tokens of the longest pair."""
        return max(row.tokens for row in self.sequences)

    @property
    def ranks(self) -> bool:
        """Whether a document can be ranked above another."""
        return len(self.labels) > 1 and bool(self.labels.max() > 0)


@dataclass(frozen=True)
class Part:
    """Groups whose activations are held at once. G groups, S documents of the largest one.

    Args:
        batches: their pairs, padded, those of similar length together.
        places: int32 [G, S], where each document's logit is among those of the batches, one after the other; 0 where
            there is no document.
        shown: bool [G, S], True where there is a document.
        labels: float32 [G, S].
        teacher: float32 [G, S], or None.
    """

    batches: list[Batch]
    places: np.ndarray
    shown: np.ndarray
    labels: np.ndarray
    teacher: np.ndarray | None


@dataclass(frozen=True)
class Step:
    """What one update of the weights is made of.

    Args:
        parts: of it, computed one after the other.
        groups: how many groups have a document to rank above another.
        lists: how many have several documents.
        documents: how many documents there are.
        followers: how many of them are not the first of their group.
        tokens: of all pairs, without padding.
        truncated_tokens: that did not fit.
    """

    parts: list[Part]
    groups: int
    lists: int
    documents: int
    followers: int
    tokens: int
    truncated_tokens: int


class Steps:
    """All steps of a run."""

    def __init__(
        self, examples: Sequence[Example], encoder: PairEncoder, options: TrainingOptions, max_length: int
    ) -> None:
        """Take over the data.

        Args:
            examples: to train on.
            encoder: of the model.
            options: of the run.
            max_length: most tokens of a pair.
        """
        self._examples, self._encoder, self._options = examples, encoder, options
        self._limits = Limits(max_length)
        self._an_epoch = -(-len(examples) // options.batch_size)

    def __len__(self) -> int:
        """Return how many there are."""
        return self._an_epoch * self._options.epochs

    def epoch_ends(self, step: int) -> bool:
        """Tell whether an epoch ends after this many steps."""
        return step % self._an_epoch == 0

    def after(self, done: int) -> Iterator[Step]:
        """Yield the steps that follow the first `done`."""
        while done < len(self):
            epoch, within = divmod(done, self._an_epoch)
            pool, seen = divmod(within, _POOL)
            steps = self._pool(epoch, pool)
            yield from steps[seen:]
            done += len(steps) - seen

    def _pool(self, epoch: int, pool: int) -> list[Step]:
        """Return the steps of a pool: similar lengths together, and then in random order."""
        size, seed = self._options.batch_size, self._options.seed
        order = np.random.default_rng((seed, epoch)).permutation(len(self._examples))
        chosen = order[pool * _POOL * size : (pool + 1) * _POOL * size]
        random = np.random.default_rng((seed, epoch, 1 + pool))  # with 0 it would be the generator of the order
        groups = self._groups([drawn(self._examples[i], self._options.group_size, random) for i in chosen])
        groups.sort(key=lambda pair: pair[0].longest)
        steps = [self._step(groups[start : start + size]) for start in range(0, len(groups), size)]
        return [steps[i] for i in random.permutation(len(steps))]

    def _groups(self, examples: Sequence[Example]) -> list[tuple[Group, int]]:
        """Return the examples as token ids, and how many tokens of each were cut."""
        pairs = [(example.query, document) for example in examples for document in example.documents]
        encoded = self._encoder.encode(pairs, self._limits)
        groups, first = [], 0
        for example in examples:
            rows = slice(first, first + len(example.documents))
            first = rows.stop
            teacher = None if example.teacher is None else np.array(example.teacher, dtype=np.float32)
            sequences = [encoded.sequences[i] for i in encoded.inverse[rows]]
            group = Group(sequences, np.array(example.labels, dtype=np.float32), teacher)
            groups.append((group, int(encoded.truncated_tokens[rows].sum())))
        return groups

    def _step(self, chosen: Sequence[tuple[Group, int]]) -> Step:
        """Return a step, in as many parts as the token budget asks for."""
        groups = [group for group, _ in chosen]
        parts: list[list[Group]] = []
        tokens = self._options.token_budget
        for group in groups:
            own = sum(row.tokens for row in group.sequences)
            if not parts or tokens + own > self._options.token_budget:
                parts.append([])
                tokens = 0
            parts[-1].append(group)
            tokens += own
        documents = sum(len(group.labels) for group in groups)
        return Step(
            parts=[self._part(part) for part in parts],
            groups=sum(group.ranks for group in groups),
            lists=sum(len(group.labels) > 1 for group in groups),
            documents=documents,
            followers=documents - len(groups),
            tokens=sum(row.tokens for group in groups for row in group.sequences),
            truncated_tokens=sum(cut for _, cut in chosen),
        )

    def _part(self, groups: Sequence[Group]) -> Part:
        """Return groups as padded batches, and where their documents are in these."""
        sequences = [sequence for group in groups for sequence in group.sequences]
        plan = Batching(self._options.token_budget).plan(np.array([row.tokens for row in sequences]))
        where = np.argsort(np.concatenate(plan))
        sizes = np.array([len(group.labels) for group in groups])
        shown = np.arange(sizes.max()) < sizes[:, None]

        def spread(values: np.ndarray, dtype: type) -> np.ndarray:
            table = np.zeros(shown.shape, dtype=dtype)
            table[shown] = values
            return table

        taught = [group.teacher for group in groups if group.teacher is not None]
        return Part(
            batches=[pad([sequences[i] for i in rows], self._encoder.pad_token_id) for rows in plan],
            places=spread(where, np.int32),
            shown=shown,
            labels=spread(np.concatenate([group.labels for group in groups]), np.float32),
            teacher=spread(np.concatenate(taught), np.float32) if len(taught) == len(groups) else None,
        )


def drawn(example: Example, size: int, random: np.random.Generator) -> Example:
    """Return an example with at most `size` documents: a positive one, first, and others that are not positive.

    Args:
        example: with any number of documents.
        size: of the group.
        random: chooses.
    """
    positives = example.positives
    first = [int(random.choice(positives))] if positives else []
    others = [
        i for i in range(len(example.documents)) if i not in (positives if len(example.documents) > size else first)
    ]
    if len(others) > size - len(first):
        others = random.choice(others, size - len(first), replace=False).tolist()
    chosen = first + others
    teacher = None if example.teacher is None else tuple(example.teacher[i] for i in chosen)
    documents = tuple(example.documents[i] for i in chosen)
    return Example(example.query, documents, tuple(example.labels[i] for i in chosen), teacher)
