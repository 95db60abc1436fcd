"""How well a model ranks labelled documents: nDCG@10, as it learns."""

from collections.abc import Callable, Sequence

import numpy as np

from mlx_rerank.pairs.batching import Batch, Batching, pad
from mlx_rerank.pairs.encoder import PairEncoder
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.train.examples import Example

Forward = Callable[[list[Batch]], list[np.ndarray]]


def logits_of(
    forward: Forward, encoder: PairEncoder, examples: Sequence[Example], max_length: int, token_budget: int
) -> list[np.ndarray]:
    """Return the logits of every example's documents, float32 [documents] each.

    Args:
        forward: computes the logits of batches.
        encoder: of the model.
        examples: queries with documents.
        max_length: most tokens of a pair.
        token_budget: most padded tokens of a batch.
    """
    pairs = [(example.query, document) for example in examples for document in example.documents]
    encoded = encoder.encode(pairs, Limits(max_length))
    plan = Batching(token_budget).plan(encoded.lengths)
    found = forward([pad([encoded.sequences[i] for i in rows], encoder.pad_token_id) for rows in plan])
    logits = np.empty(len(encoded.sequences), dtype=np.float32)
    logits[np.concatenate(plan)] = np.concatenate(found)
    ends = np.cumsum([len(example.documents) for example in examples])
    return np.split(logits[encoded.inverse], ends[:-1])


def mean_ndcg(examples: Sequence[Example], logits: Sequence[np.ndarray], k: int = 10) -> float:
    """Return nDCG@k, averaged over the examples with a relevant document; equal logits keep the worst order.

    Source: Järvelin and Kekäläinen 2002, with gains of the label itself, as in trec_eval.
    """
    values = [
        _ndcg(np.array(example.labels), scores, k)
        for example, scores in zip(examples, logits, strict=True)
        if max(example.labels) > 0
    ]
    return float(np.mean(values)) if values else float("nan")


def _ndcg(labels: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Return nDCG@k of one ranking."""
    discounts = 1 / np.log2(np.arange(2, 2 + min(k, len(labels))))
    ranked = labels[np.lexsort((labels, -scores))][:k]  # of equal scores the least relevant first: ties earn nothing
    return float(ranked @ discounts / (np.sort(labels)[::-1][:k] @ discounts))
