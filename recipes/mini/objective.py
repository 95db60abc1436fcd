"""What the next model is taught: the rival's opinion of a group, put right by what is known, as one distribution.

The rival's cosines, divided by a temperature, are log-odds of what it believes, and a label adds to them, as evidence
does by Bayes' rule: of a passage's sentences the rival says which one answers, and the label that it is one of them.

Sources: soft targets: Hinton et al. 2015 (arXiv 1503.02531); labels that only the teacher sees: Lopez-Paz et al. 2016
(arXiv 1511.03643); listwise softmax: Cao et al. 2007 (ListNet).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

TEMPERATURE = 0.02  # of the rival's cosines
BINARY = 0.2  # weight of binary cross-entropy, which gives the logits a level


def targets(groups: Sequence[dict[str, Any]], labels: float = 1.0, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Return a distribution [groups, texts].

    Args:
        groups: rows of kinds.py.
        labels: share of what a label counts; 0 leaves the rival's opinion alone.
        temperature: of the rival's cosines.
    """
    prior, right = (torch.tensor([group[key] for group in groups]) for key in ("prior", "right"))
    bonus, trust = (torch.tensor([[group[key]] for group in groups]) for key in ("bonus", "trust"))
    if labels == 0:
        trust = torch.ones_like(trust)
    return torch.softmax(trust * prior / temperature + labels * bonus * right, -1)


def loss_of(logits: torch.Tensor, target: torch.Tensor, binary: float = BINARY) -> torch.Tensor:
    """Return the summed loss of some groups: divergence from the target, and binary cross-entropy.

    Args:
        logits: float32 [groups, texts].
        target: float32 of the same shape; each row sums to one.
        binary: weight of binary cross-entropy.
    """
    listwise = F.kl_div(torch.log_softmax(logits, -1), target, reduction="sum")
    return listwise + binary * F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / target.size(1)
