"""Train a small multilingual cross-encoder on groups of texts: listwise and binary cross-entropy, in torch on a CPU.

    python recipes/mini/train_mini.py START OUT --groups DIRECTORY --seconds 9400 --decay 2000

START is a Hugging Face directory of an XLMRobertaForSequenceClassification with one label. DIRECTORY holds
groups-NNN.jsonl.gz of groups.py, read in order and each once; the run waits for the next one where it is not there yet.
Word embeddings stay frozen. The learning rate warms up, stays at its peak, and falls in a straight line to nothing
during the last --decay seconds, so a run can be made longer at any time before that.

OUT/state.pt has the weights, the optimizer, and the place in the groups; the same command goes on from there.
OUT/state-peak.pt is the state when the fall begins: to train on from it, copy it to another directory as state.pt and
give more --seconds. OUT/model is a float16 directory.

Sources: listwise softmax: Cao et al. 2007 (ListNet); binary cross-entropy of pairs: Nogueira and Cho 2019 (arXiv
1901.04085); AdamW: Loshchilov and Hutter 2019 (arXiv 1711.05101); warm-up, plateau and short decay: Hu et al. 2024
(MiniCPM, arXiv 2404.06395); bfloat16 with float32 weights: Kalamkar et al. 2019 (arXiv 1905.12322).
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from batches import Batch, Batches
from tokenizers import Tokenizer
from transformers import AttentionInterface, AttentionMaskInterface, XLMRobertaForSequenceClassification
from transformers.masking_utils import eager_mask
from weights import save_model


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention with the softmax in bfloat16: torch's fused CPU kernel is slow backwards for heads of 32."""
    with torch.autocast("cpu", enabled=False):
        weights = torch.matmul(query * (scaling or query.size(-1) ** -0.5), key.transpose(2, 3))
        if attention_mask is not None:
            weights = weights + attention_mask.to(weights.dtype)
        return torch.matmul(torch.softmax(weights, -1), value).transpose(1, 2).contiguous(), None


def load(start: Path) -> XLMRobertaForSequenceClassification:
    """Return a model in float32, without dropout, its word embeddings frozen."""
    AttentionInterface.register("plain", attention)
    AttentionMaskInterface.register("plain", eager_mask)
    model = XLMRobertaForSequenceClassification.from_pretrained(start, dtype=torch.float32, attn_implementation="plain")
    model.roberta.embeddings.word_embeddings.weight.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.train()


def logits_of(model: XLMRobertaForSequenceClassification, batch: Batch) -> torch.Tensor:
    """Return float32 [groups, texts]."""
    pad = model.config.pad_token_id
    with torch.autocast("cpu", torch.bfloat16):
        halves = [model(input_ids=ids, attention_mask=(ids != pad).long()).logits for ids in batch.halves]
    return torch.cat(halves).float()[batch.back].view(batch.target.shape)


def loss_of(logits: torch.Tensor, target: torch.Tensor, binary: float) -> torch.Tensor:
    """Return the loss of a step, with so much of binary cross-entropy."""
    return F.cross_entropy(logits, target) + binary * F.binary_cross_entropy_with_logits(logits, target)


def optimizer_of(model: torch.nn.Module, lr: float) -> torch.optim.AdamW:
    """Return the optimizer; the head learns twice as fast as the encoder."""
    head = [p for n, p in model.named_parameters() if n.startswith("classifier")]
    body = [p for n, p in model.named_parameters() if not n.startswith("classifier") and p.requires_grad]
    groups = [{"params": body, "lr": lr, "peak": lr}, {"params": head, "lr": 2 * lr, "peak": 2 * lr}]
    return torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))


class Clock:
    """Seconds of training: those of earlier runs count, and waiting does not."""

    def __init__(self, before: float) -> None:
        self._began = time.time() - before

    def spent(self) -> float:
        """Return the seconds."""
        return time.time() - self._began

    def wait(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
        self._began += seconds


class Run:
    """A training run, begun or gone on with."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Load the model, and the state if there is one.

        Args:
            args: of the command line.
        """
        args.out.mkdir(parents=True, exist_ok=True)
        self.args = args
        self.model = load(args.start)
        self.optimizer = optimizer_of(self.model, args.lr)
        self.step, self.spent, position = 0, 0.0, 0
        if (args.out / "state.pt").exists():
            position = self._go_on(torch.load(args.out / "state.pt"))
        tokenizer = Tokenizer.from_file(str(args.start / "tokenizer.json"))
        pad = self.model.roberta.embeddings.padding_idx
        self.batches = Batches(args.groups, tokenizer, args.seed, pad, args.max_length, position)
        self.clock = Clock(self.spent)
        self._before, self._tokens = self.spent, 0

    def _go_on(self, state: dict[str, Any]) -> int:
        """Take over a state, and return the place in the groups."""
        self.model.load_state_dict(state["model"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        for group, peak in zip(self.optimizer.param_groups, (self.args.lr, 2 * self.args.lr), strict=True):
            group["peak"] = peak
        if self.args.anew:
            state |= {"step": 0, "spent": 0.0, "position": 0}
        self.step, self.spent = state["step"], state["spent"]
        print(f"goes on from step {self.step}, group {state['position']}, {self.spent:.0f} s", flush=True)
        return state["position"]

    def rate(self) -> float:
        """Return the share of the peak learning rate: warm-up by steps, decay by seconds."""
        args, spent = self.args, self.clock.spent()
        return min(1.0, (self.step + 1) / args.warmup) * max(0.0, min(1.0, (args.seconds - spent) / args.decay))

    def learn(self, batch: Batch) -> tuple[float, float]:
        """Take a step, and return its loss and the share of groups whose best text comes first."""
        share = self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        logits = logits_of(self.model, batch)
        loss = loss_of(logits, batch.target, self.args.binary)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._tokens += sum(ids.numel() for ids in batch.halves)
        return loss.item(), (logits.argmax(1) == batch.target.argmax(1)).float().mean().item()

    def report(self, learned: Sequence[tuple[float, float]]) -> None:
        """Print where the run is, and the means of a pool's steps."""
        loss, hits = (sum(values) / len(learned) for values in zip(*learned, strict=True))
        print(
            f"{self.spent:.0f} s, {self.step} steps, {self.batches.position} questions, loss {loss:.3f}, "
            f"first right {hits:.3f}, rate {self.optimizer.param_groups[0]['lr']:.2e}, "
            f"{self._tokens / max(1.0, self.spent - self._before):.0f} tokens/s",
            flush=True,
        )

    def save_state(self, name: str) -> None:
        """Write a state to go on from. The file is there when all of it is."""
        path = self.args.out / name
        state = {
            "model": {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "position": self.batches.position,
            "spent": self.spent,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)

    def train(self) -> None:
        """Take steps until the time is over."""
        args, saved, peak_kept = self.args, time.time(), (self.args.out / "state-peak.pt").exists()
        while self.clock.spent() < args.seconds:
            pool = self.batches.pool()
            if pool is None:
                self.clock.wait(5)
                continue
            learned = [self.learn(batch) for batch in pool]
            self.spent = self.clock.spent()
            self.report(learned)
            if not peak_kept and self.spent > args.seconds - args.decay:
                self.save_state("state-peak.pt")
                peak_kept = True
            if time.time() - saved > args.save:
                self.save_state("state.pt")
                save_model(self.model, self.args.start, self.args.out / "model")
                saved = time.time()
        self.save_state("state.pt")
        self.model.eval()
        save_model(self.model, self.args.start, self.args.out / "model")


def arguments() -> argparse.ArgumentParser:
    """Return what the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path, help="Hugging Face directory to begin with")
    parser.add_argument("out", type=Path, help="directory for states and the model")
    parser.add_argument("--groups", type=Path, required=True, help="directory of groups.py")
    parser.add_argument("--seconds", type=float, required=True, help="of training, those of earlier runs included")
    parser.add_argument("--decay", type=float, default=1500, help="last seconds, in which the learning rate falls")
    parser.add_argument("--lr", type=float, default=2e-4, help="learning rate at its peak")
    parser.add_argument("--warmup", type=int, default=60, help="steps")
    parser.add_argument("--max-length", type=int, default=256, help="most tokens of a pair")
    parser.add_argument("--save", type=float, default=240, help="seconds between states")
    parser.add_argument("--binary", type=float, default=0.5, help="weight of binary cross-entropy")
    parser.add_argument("--anew", action="store_true", help="of a state take weights and optimizer alone: once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def main() -> None:
    """Begin a run, or go on with it."""
    args = arguments().parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    Run(args).train()


if __name__ == "__main__":
    main()
