"""Groups of texts as batches of token ids, in an order that follows from a seed."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from data import read_rows
from tokenizers import Tokenizer

GROUPS = 8  # of a step
POOL = 24  # steps tokenised and sorted by length together


class Batch(NamedTuple):
    """The groups of a step. B groups, T texts of each.

    Args:
        halves: token ids, int64 [B * T / 2, tokens], of the shorter pairs and of the longer ones: groups mix both.
        back: int64 [B * T], where each pair is in the halves.
        target: float32 [B, T].
    """

    halves: list[torch.Tensor]
    back: torch.Tensor
    target: torch.Tensor


class Batches:
    """Batches in a fixed order. The position is the number of groups taken, always of whole pools."""

    def __init__(
        self, folder: Path, tokenizer: Tokenizer, seed: int, pad: int, max_length: int, position: int = 0
    ) -> None:
        """Begin somewhere.

        Args:
            folder: with the groups.
            tokenizer: of the model; its truncation and padding are changed.
            seed: of the order.
            pad: id of the padding.
            max_length: most tokens of a pair, beside the limit of its group.
            position: groups to skip.
        """
        self.position = position
        self._folder, self._tokenizer, self._seed, self._pad = folder, tokenizer, seed, pad
        self._max_length = max_length
        self._rows: list[dict[str, Any]] = []
        self._shard, self._skip = 0, position
        tokenizer.no_padding()

    def pool(self) -> list[Batch] | None:
        """Return the next batches, or None while the file that holds them is missing."""
        groups = self._take(GROUPS * POOL)
        if groups is None:
            return None
        rng = random.Random(f"{self._seed}:pool:{self.position}")
        rows = sorted(((self._tokens(g), g["target"]) for g in groups), key=lambda row: max(map(len, row[0])))
        batches = [self._batch(rows[i : i + GROUPS]) for i in range(0, len(rows), GROUPS)]
        rng.shuffle(batches)
        self.position += len(groups)
        return batches

    def _take(self, count: int) -> list[dict[str, Any]] | None:
        """Return the next groups, if they are there."""
        while len(self._rows) < count:
            path = self._folder / f"groups-{self._shard:03}.jsonl.gz"
            if not path.exists():
                return None
            rows = list(read_rows(path))
            random.Random(f"{self._seed}:shard:{self._shard}").shuffle(rows)
            dropped = min(self._skip, len(rows))
            self._skip -= dropped
            self._rows += rows[dropped:]
            self._shard += 1
        taken, self._rows = self._rows[:count], self._rows[count:]
        return taken

    def _tokens(self, group: dict[str, Any]) -> list[list[int]]:
        """Return the ids of each pair."""
        self._tokenizer.enable_truncation(min(group["length"], self._max_length), strategy="longest_first")
        pairs = [(group["query"], text) for text in group["texts"]]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(pairs)]

    def _batch(self, rows: Sequence[tuple[list[list[int]], list[float]]]) -> Batch:
        """Return groups as two halves by length, each padded for itself."""
        flat = [ids for texts, _ in rows for ids in texts]
        order = sorted(range(len(flat)), key=lambda i: len(flat[i]))
        middle = len(order) // 2
        halves = [self._padded([flat[i] for i in part]) for part in (order[:middle], order[middle:])]
        return Batch(halves, torch.tensor(order).argsort(), torch.tensor([target for _, target in rows]))

    def _padded(self, rows: Sequence[list[int]]) -> torch.Tensor:
        """Return rows as one tensor, of few widths: a new shape costs a second for its kernels."""
        width = -(-max(map(len, rows)) // 16) * 16
        ids = torch.full((len(rows), width), self._pad)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return ids
