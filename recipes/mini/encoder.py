"""XLM-RoBERTa without a padded token: the same numbers as transformers', for less work on a CPU.

Tokens of all pairs lie in one row after another. Attention alone sees them pair by pair, and of the last layer only
the first token of each pair is computed, as the head reads no other.

Sources: the graph: Conneau et al. 2020 (arXiv 1911.02116); pairs without padding: Zeng et al. 2022 (arXiv 2208.08124).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers import XLMRobertaForSequenceClassification, XLMRobertaModel

ROWS = 16  # pairs whose attention is computed at once, the shortest together


class Packed(NamedTuple):
    """Token ids of pairs without padding. N tokens, R pairs.

    Args:
        ids: int64 [N], of one pair after another.
        places: int64 [N], of each token in its pair.
        first: int64 [R], where each pair begins.
        chunks: of some pairs each: where their tokens are, their rows and columns, and shape of the padded block.
    """

    ids: torch.Tensor
    places: torch.Tensor
    first: torch.Tensor
    chunks: list[tuple[slice, torch.Tensor, tuple[int, int]]]


def pack(rows: Sequence[Sequence[int]]) -> tuple[Packed, torch.Tensor]:
    """Return pairs by length, and where each of the given ones came to be."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    lengths = torch.tensor([len(rows[i]) for i in order])
    ends = lengths.cumsum(0)
    first = ends - lengths
    places = torch.arange(int(ends[-1])) - first.repeat_interleave(lengths)
    chunks = []
    for start in range(0, len(order), ROWS):
        of_chunk = lengths[start : start + ROWS]
        width, tokens = int(of_chunk.max()), slice(int(first[start]), int(ends[start + len(of_chunk) - 1]))
        flat = torch.arange(len(of_chunk)).repeat_interleave(of_chunk) * width + places[tokens]
        chunks.append((tokens, flat, (len(of_chunk), width)))
    ids = torch.tensor([token for i in order for token in rows[i]])
    return Packed(ids, places, first, chunks), torch.tensor(order).argsort()


def logits_of(model: XLMRobertaForSequenceClassification, packed: Packed) -> torch.Tensor:
    """Return the logits [R] of a model with one label, without dropout."""
    x = states(model.roberta, packed, model.config.num_hidden_layers - 1)
    last: Any = model.roberta.encoder.layer[-1]
    asked = x[packed.first]
    x = _after(last, asked, _attended(last.attention.self, asked, x, packed, model.config.num_attention_heads))
    return model.classifier.out_proj(torch.tanh(model.classifier.dense(x)))[:, 0].float()


def means(model: XLMRobertaModel, packed: Packed) -> torch.Tensor:
    """Return the mean of each row's last states, [R, D]."""
    x = states(model, packed, model.config.num_hidden_layers).float()
    lengths = torch.diff(packed.first, append=torch.tensor([len(packed.ids)]))
    rows = torch.arange(len(lengths)).repeat_interleave(lengths)
    return x.new_zeros(len(lengths), x.size(1)).index_add(0, rows, x) / lengths[:, None]


def states(model: XLMRobertaModel, packed: Packed, layers: int) -> torch.Tensor:
    """Return the states [N, D] after so many layers."""
    embeddings, heads = model.embeddings, model.config.num_attention_heads
    x = embeddings.word_embeddings(packed.ids) + embeddings.token_type_embeddings.weight[0]
    x = embeddings.LayerNorm(x + embeddings.position_embeddings(packed.places + embeddings.padding_idx + 1))
    for layer in list[Any](model.encoder.layer)[:layers]:
        x = _after(layer, x, _attended(layer.attention.self, x, x, packed, heads))
    return x


def _after(layer: Any, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    """Return what a layer makes of its input and the attended values."""
    output = layer.attention.output
    x = output.LayerNorm(output.dense(attended) + x)
    return layer.output.LayerNorm(layer.output.dense(F.gelu(layer.intermediate.dense(x))) + x)


def _attended(attention: Any, asking: torch.Tensor, x: torch.Tensor, packed: Packed, heads: int) -> torch.Tensor:
    """Return the attended values of all tokens or, where fewer ask, of the first token of each pair.

    Args:
        attention: whose projections are used.
        asking: [N or R, D], of which queries are made.
        x: [N, D], of which keys and values are made.
        packed: says which tokens belong together.
        heads: of the attention.
    """
    query, key, value = attention.query(asking), attention.key(x), attention.value(x)
    size, found, start = query.size(-1) // heads, [], 0
    for tokens, flat, (rows, width) in packed.chunks:
        empty = torch.ones(rows * width, dtype=torch.bool).index_fill_(0, flat, False).view(rows, 1, 1, width)
        if asking is x:
            q = _block(query[tokens], flat, rows, width)
        else:
            q, start = query[start : start + rows].view(rows, 1, -1), start + rows
        q, k, v = (
            block.view(rows, -1, heads, size).transpose(1, 2)
            for block in (q, _block(key[tokens], flat, rows, width), _block(value[tokens], flat, rows, width))
        )
        weights = (q @ k.transpose(2, 3) * size**-0.5).masked_fill(empty, torch.finfo(q.dtype).min)
        mixed = (torch.softmax(weights, -1) @ v).transpose(1, 2).reshape(-1, heads * size)
        found.append(mixed[flat] if asking is x else mixed)
    return torch.cat(found)


def _block(rows: torch.Tensor, flat: torch.Tensor, count: int, width: int) -> torch.Tensor:
    """Return tokens as a padded block [count, width, D]."""
    return rows.new_zeros(count * width, rows.size(-1)).index_copy(0, flat, rows).view(count, width, -1)
