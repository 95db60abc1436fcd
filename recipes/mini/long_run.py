"""Train the next model for as long as there is time: one core, and it may be stopped at any moment.

    python recipes/mini/long_run.py START OUT --data DATA --pages FILE ... --rival DIRECTORY --kept FILE

The same command goes on from OUT/state.pt, which is written beside and renamed every few minutes: what a kill costs
is less. A group follows from its number, so the number of steps is all that a run remembers beside its weights.
OUT/lock has the process's number, and keeps a second one away.

The learning rate warms up, stays, and falls in a straight line to nothing in the last --decay of --steps. To make a
model of any point, copy state.pt to another directory, and go on there with --steps a little further and --decay the
difference. OUT/average is a float16 directory of the running mean of the weights.

Sources: AdamW: Loshchilov and Hutter 2019 (arXiv 1711.05101); warm-up, plateau and short decay: Hu et al. 2024
(MiniCPM, arXiv 2404.06395); a running mean of weights: Izmailov et al. 2018 (arXiv 1803.05407).
"""

import argparse
import fcntl
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from against_rival import Held, judged
from data import TrainingSets, read_rows
from encoder import Packed, logits_of, pack
from kinds import Kinds, Made, group_of, joined
from objective import loss_of, targets
from rival import Rival
from tokenizers import Tokenizer
from train_mini import load, optimizer_of
from transformers import XLMRobertaForSequenceClassification
from weights import averaged, faster_dtype, save_model, swapped

GROUPS = 8  # of a step
POOL = 12  # steps whose groups are made and sorted by length together
TOKENS = 4096  # of a pass, about: what is more is done in several
MEAN = 0.999  # what the running mean keeps in a step


class Part(NamedTuple):
    """Some groups of a step, in one pass.

    Args:
        packed: their pairs.
        back: where each pair came to be.
        target: float32 [groups, texts].
    """

    packed: Packed
    back: torch.Tensor
    target: torch.Tensor


class Pools:
    """Steps by their number."""

    def __init__(self, kinds: Kinds, rival: Rival | None, tokenizer: Tokenizer, labels: float = 1.0) -> None:
        """Take over what groups are made of.

        Args:
            kinds: makes groups.
            rival: has an opinion of them; None for none.
            tokenizer: of the model; its truncation is changed.
            labels: share of what a label counts.
        """
        self._kinds, self._rival, self._tokenizer, self._labels = kinds, rival, tokenizer, labels
        tokenizer.no_padding()

    def pool(self, number: int) -> list[list[Part]]:
        """Return the steps of a pool."""
        size = GROUPS * POOL
        made = [self._kinds.made(n) for n in range(number * size, (number + 1) * size)]
        groups = [group_of(*pair) for pair in zip(made, self._opinions(made), strict=True)]
        rows = sorted(((self.tokens(group), group) for group in groups), key=lambda row: sum(map(len, row[0])))
        steps = [self._parts(rows[i : i + GROUPS]) for i in range(0, size, GROUPS)]
        random.Random(number).shuffle(steps)
        return steps

    def _opinions(self, made: Sequence[Made]) -> list[list[float] | None]:
        """Return the rival's cosines of the groups in which it is trusted at all."""
        rival, asked = self._rival, [m for m in made if m.trust or not self._labels]
        if rival is None:
            return [None] * len(made)
        rival.read([m.query for m in asked], [text for m in asked for text in m.right + m.wrong])
        return [rival.cosines(m.query, m.right + m.wrong) if m in asked else None for m in made]

    def tokens(self, group: dict[str, Any]) -> list[list[int]]:
        """Return the ids of each pair."""
        self._tokenizer.enable_truncation(group["length"], strategy="longest_first")
        pairs = [(group["query"], text) for text in group["texts"]]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(pairs)]

    def _parts(self, rows: Sequence[tuple[list[list[int]], dict[str, Any]]]) -> list[Part]:
        """Return groups as passes of about so many tokens."""
        parts: list[list[Any]] = [[]]
        for row in rows:
            if parts[-1] and sum(len(ids) for pairs, _ in [*parts[-1], row] for ids in pairs) > TOKENS:
                parts.append([])
            parts[-1].append(row)
        return [
            Part(
                *pack([ids for pairs, _ in part for ids in pairs]), targets([group for _, group in part], self._labels)
            )
            for part in parts
        ]


class Run:
    """A training run, begun or gone on with."""

    def __init__(self, args: argparse.Namespace, model: XLMRobertaForSequenceClassification) -> None:
        """Take over the state if there is one.

        Args:
            args: of the command line.
            model: to train.
        """
        self.args, self.model = args, model
        for module in [model.roberta.embeddings, *model.roberta.encoder.layer][: args.frozen + bool(args.frozen)]:
            module.requires_grad_(False)
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.average = {n: p.detach().clone() for n, p in self.trained.items()}
        self.optimizer = optimizer_of(model, args.lr)
        self.step, self.cpu, self.tokens = 0, 0.0, 0
        self.dtype = faster_dtype() if args.dtype == "faster" else getattr(torch, args.dtype)
        args.out.mkdir(parents=True, exist_ok=True)
        if (args.out / "state.pt").exists():
            self._go_on(torch.load(args.out / "state.pt"))
        self._marks = self._now()
        self._saved = self._now()

    def _go_on(self, state: dict[str, Any]) -> None:
        """Take over a state."""
        self.model.load_state_dict(state["model"], strict=False)
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, peak in zip(self.optimizer.param_groups, (self.args.lr, 2 * self.args.lr), strict=True):
            group["peak"] = peak
        self.step, self.cpu, self.tokens = state["step"], state["cpu"], state["tokens"]
        print(f"goes on from step {self.step}, {self.cpu / 3600:.2f} h, in {self.dtype}", flush=True)

    def _now(self) -> tuple[float, float, int]:
        """Return seconds of this process, seconds of the clock, and tokens."""
        return time.process_time(), time.time(), self.tokens

    def rate(self) -> float:
        """Return the share of the peak learning rate."""
        args = self.args
        return min(1.0, (self.step + 1) / args.warmup) * max(0.0, min(1.0, (args.steps - self.step) / args.decay))

    def learn(self, parts: Sequence[Part]) -> tuple[float, float]:
        """Take a step, and return its loss and the share of groups whose best text comes first."""
        began, loss, hits = time.process_time(), 0.0, 0.0
        groups = sum(len(part.target) for part in parts)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self.rate()
        for part in parts:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                logits = logits_of(self.model, part.packed)[part.back].view(part.target.shape)
            summed = loss_of(logits, part.target)
            (summed / groups).backward()
            loss += summed.item() / groups
            hits += (logits.argmax(1) == part.target.argmax(1)).sum().item() / groups
            self.tokens += len(part.packed.ids)
        torch.nn.utils.clip_grad_norm_(list(self.trained.values()), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        averaged(self.average, self.trained, min(MEAN, self.step / (self.step + 10)))
        self.cpu += time.process_time() - began
        return loss, hits

    def report(self, learned: Sequence[tuple[float, float]]) -> None:
        """Print where the run is, and the means of the last steps."""
        loss, hits = (sum(values) / len(learned) for values in zip(*learned, strict=True))
        now = self._now()
        cpu, clock, tokens = (new - old for new, old in zip(now, self._marks, strict=True))
        self._marks = now
        print(
            f"{time.strftime('%d %H:%M')} step {self.step}, {self.tokens / 1e6:.2f} M tokens, "
            f"{self.cpu / 3600:.2f} h, loss {loss:.3f}, first right {hits:.3f}, rate {self.rate():.2f}, "
            f"tokens/s {tokens / max(cpu, 0.1):.0f} of its core, {tokens / max(clock, 0.1):.0f} by the clock",
            flush=True,
        )

    def save(self) -> None:
        """Write a state to go on from. The file is there when all of it is."""
        model = {name: p.detach() for name, p in self.trained.items()}
        state = {"model": model, "average": self.average, "optimizer": self.optimizer.state_dict()}
        part = self.args.out / "state.part"
        torch.save({**state, "step": self.step, "cpu": self.cpu, "tokens": self.tokens}, part)
        part.rename(self.args.out / "state.pt")
        self._saved = self._now()

    def train(self, pools: Pools, held: Held | None = None) -> None:
        """Take steps to the end."""
        while self.step < self.args.steps:
            learned = []
            for parts in pools.pool(self.step // POOL)[self.step % POOL :]:
                learned.append(self.learn(parts))
                cpu, clock, _ = self._now()
                if cpu - self._saved[0] > self.args.save or clock - self._saved[1] > 2 * self.args.save:
                    self.save()
                if self.step % self.args.judge == 0:
                    self.save()
                    self.publish(held)
                if self.step == self.args.steps:
                    break
            self.report(learned)
            self.save()  # the next pool takes a while to make
        self.publish(held)

    def publish(self, held: Held | None) -> None:
        """Write the averaged model, and print what it is worth on what was held out."""
        with swapped(self.trained, self.average):
            save_model(self.model, self.args.start, self.args.out / "average")
            if held:
                print(f"step {self.step}: {judged(self.model, held, self.dtype)}", flush=True)


def arguments() -> argparse.ArgumentParser:
    """Return what the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path, help="Hugging Face directory to begin with")
    parser.add_argument("out", type=Path, help="directory for the state and the model")
    parser.add_argument("--data", type=Path, required=True, help="directory of licensed.py")
    parser.add_argument("--pages", type=Path, nargs="*", default=[], help="files of parallel.py and aligned.py")
    parser.add_argument("--rival", type=Path, help="Hugging Face directory of a bi-encoder")
    parser.add_argument("--kept", type=Path, help="file for its vectors")
    parser.add_argument("--held", type=Path, help="file of against_rival.py")
    parser.add_argument("--steps", type=int, default=16_000)
    parser.add_argument("--decay", type=int, default=3_000, help="last steps, in which the learning rate falls")
    parser.add_argument("--warmup", type=int, default=300, help="steps")
    parser.add_argument("--lr", type=float, default=2e-4, help="learning rate at its peak")
    parser.add_argument("--frozen", type=int, default=4, help="lowest layers that stay as they are")
    parser.add_argument("--labels", type=float, default=1.0, help="share of what labels count; 0: the rival alone")
    parser.add_argument("--save", type=float, default=120, help="seconds of the process between states")
    parser.add_argument("--judge", type=int, default=500, help="steps between looks at what is held out")
    parser.add_argument("--dtype", choices=["faster", "float32", "bfloat16"], default="faster")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def main() -> None:
    """Begin a run, or go on with it."""
    args = arguments().parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    lock = os.open(args.out / "lock", os.O_CREAT | os.O_RDWR, 0o644)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where the run is under way
    os.truncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    data = TrainingSets(args.data)
    data.pages = joined(*(list(read_rows(path)) for path in args.pages))
    run = Run(args, load(args.start))
    rival = Rival(args.rival, args.kept, run.dtype) if args.rival else None
    pools = Pools(Kinds(data, args.seed), rival, Tokenizer.from_file(str(args.start / "tokenizer.json")), args.labels)
    run.train(pools, Held.read(args.held, args.start) if args.held else None)


if __name__ == "__main__":
    main()
